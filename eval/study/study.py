"""A study: many tokenizers that differ in a few words, one evaluation, one report.

`python -m eval study configs/studies/NAME.yaml [KEY=VALUE ...]` trains what is missing (each run by
the train command, in a folder below the study's), trains missing probes, evaluates all of them
together and writes report.html, report.md and results.json beside them. The same command goes on
after a kill: finished runs and probes are found again, an unfinished one resumes from its newest
checkpoint, the evaluation takes up what its cache holds.

KEY=VALUE is a key of the study (evaluate.limit=256) or of every training config in it (steps=100,
data.train=...); the latter have the last word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import click
from pydantic import Field, create_model, field_validator

from vistok.config import Config, ConfigError, read_yaml, validate
from vistok.eval.jobs import PROTOCOLS
from vistok.eval.options import Options
from vistok.eval.results.rows import Results
from vistok.eval.systems.probe import recipe
from vistok.eval.systems.training import finished, train
from vistok.train.config import TrainConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_HERE = ("device", "data")  # of the machine; of the runs' own configs


def _options() -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every field of Options as (name, (type, default)): a new one is a key of studies too."""
    hints = get_type_hints(Options)
    for field in fields(Options):
        if field.name not in _NOT_HERE:
            made = field.default if field.default is not MISSING else field.default_factory()
            yield field.name, (hints[field.name], made)


Evaluation = create_model(
    "Evaluation", __base__=Config, __doc__="How a study's runs are evaluated.", **dict(_options())
)


class StudyConfig(Config):
    name: str = "study"
    """Name of the study."""
    out: str = "runs/studies/{name}"
    """Folder of the study; {name} is filled in. Each run is a folder in it."""
    train: str
    """Training config (YAML) that every run starts from."""
    set: dict[str, Any] = {}
    """Keys (with dots) of that config that are other values in every run."""
    runs: dict[str, dict[str, Any]] = Field(min_length=1)
    """The runs: a name, and the keys in which it differs."""
    evaluate: Evaluation = Evaluation()
    """Options of the evaluation, by the names that `python -m eval --help` has."""
    correlate: bool = False
    """Whether the study asks how rFID and pFID of its runs go with gFID of their generators."""

    @field_validator("runs")
    @classmethod
    def _folders(cls, runs: dict[str, Any]) -> dict[str, Any]:
        for name in runs:
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' is no folder name; use letters, digits, . _ -")
        return runs

    @property
    def folder(self) -> Path:
        return Path(self.out.format(name=self.name))


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study of a YAML file; ConfigError says what is wrong, in one line."""
    own, theirs = [], {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{override}': expected an override of the form key.sub=value")
        if key.split(".")[0] in StudyConfig.model_fields:
            own.append(override)
        else:
            theirs[key] = text
    tree = read_yaml(path, own)
    study = validate(StudyConfig, tree, str(path))
    # Text, as it stood on the command line: it is read with the config, like the train command's.
    last = {name: {**changes, **_raw(theirs)} for name, changes in study.runs.items()}
    return study.model_copy(update={"runs": last})


class _Raw(str):
    """A value that is YAML text already."""


def _raw(changes: Mapping[str, str]) -> dict[str, _Raw]:
    return {key: _Raw(text) for key, text in changes.items()}


def run_config(study: StudyConfig, name: str) -> TrainConfig:
    """The whole training config of one run."""
    changes = {**study.set, **study.runs[name]}
    changes |= {"name": name, "out": str(study.folder / name)}
    as_text = lambda value: value if isinstance(value, _Raw) else json.dumps(value)
    overrides = [f"{key}={as_text(value)}" for key, value in changes.items()]
    return validate(TrainConfig, read_yaml(study.train, overrides), f"runs.{name} ({study.train})")


def run_study(
    study: StudyConfig, options: Options, only: Sequence[str] = ()
) -> tuple[Results, Path]:
    """Train what is missing, evaluate, write the report: (results, path of the report).

    Args:
        only: these runs alone; the report of a single one lies in its own folder, that of several
            in `_only`.
    """
    from vistok.eval.measure import evaluate
    from vistok.eval.report.page import write_report

    for name in only:
        if name not in study.runs:
            raise ConfigError(f"--only {name}: no such run; the study has {', '.join(study.runs)}")
    names = [name for name in study.runs if not only or name in only]
    configs = [run_config(study, name) for name in names]  # mistakes show before any training
    for config in configs:
        if config.task.kind != "tokenizer":
            raise ConfigError(
                f"{study.train}: trains a {config.task.kind}; a study needs tokenizers"
            )
    for place, config in enumerate(configs, 1):
        if finished(config):
            click.echo(f"{config.name} ({place} of {len(configs)}): is there", err=True)
            continue
        click.echo(f"{config.name} ({place} of {len(configs)}): training", err=True)
        train(config, on_cpu=options.device.type == "cpu")
    results = evaluate([config.folder for config in configs], options)
    results = _with_facts(study, results, names)
    folder = study.folder
    if only:  # the report of all runs is not replaced by one of some
        folder = folder / (names[0] if len(names) == 1 else "_only")
    target = folder / "report.html"
    write_report(results, target)
    return results, target


def options_of(study: StudyConfig, device: Any) -> Options:
    """The study's options; ConfigError or ValueError for what can be seen before training."""
    given = study.evaluate.model_dump()
    if given.get("cache", "") is None:  # outcomes are kept with the study
        given["cache"] = str(study.folder / "eval_cache")
    options = Options(device=device, **given)
    for name in options.protocols:
        if name not in PROTOCOLS:
            raise ConfigError(
                f"evaluate.protocols: unknown protocol '{name}'; valid: {', '.join(PROTOCOLS)}"
            )
    if options.probe is not None:
        recipe(options.probe)
    return options


def _with_facts(study: StudyConfig, results: Results, names: Sequence[str]) -> Results:
    """What the report says of the study: its config, and the verdict if it asks for one."""
    facts: dict[str, Any] = {
        "name": study.name,
        "runs": {name: dict(study.runs[name]) for name in names},
        "train": study.train,
        "set": dict(study.set),
    }
    if study.correlate:
        from vistok.eval.report.verdict import verdict

        facts |= verdict(results)
    return results.model_copy(update={"facts": {**results.facts, "study": facts}})
