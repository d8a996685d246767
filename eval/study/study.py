"""A study: many tokenizers that differ in a few keys, one evaluation, one report.

`vistok eval study configs/studies/NAME.yaml [KEY=VALUE ...]` trains what is missing (each run by
the train command, in a folder below the study's), trains missing probes, evaluates all of them
together and writes report.html, report.md and results.json beside them. The same command resumes
after a kill: finished runs and probes are found again, an unfinished one resumes from its newest
checkpoint, the evaluation takes up what its cache holds.

Runs are made in order, and one may start from another training config and from earlier runs: its
key `train` names the config, and `{study}` in a value is the folder that holds the runs. So a
study can go through stages: tokenizers, caches of their tokens, generators, pairs, tokenizers
that were trained on those. Tokenizers are evaluated, with the generators that fit them.

KEY=VALUE is a key of the study (evaluate.limit=256) or of every training config that starts from
the study's own (steps=100, data.train=...); the latter have the last word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from vistok.config import Config, ConfigError, read_yaml, validate
from vistok.config.overrides import split
from vistok.core.errors import InputError
from vistok.eval.config import EvalConfig
from vistok.eval.report.files import place, run_key
from vistok.eval.report.stages import sentences
from vistok.eval.results.rows import Results
from vistok.eval.study.trainings import kind_of, make, needed
from vistok.eval.systems.probe import recipe
from vistok.train.config import TrainConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StudyConfig(Config):
    name: str = "study"
    """Name of the study."""
    out: str = "runs/studies/{name}"
    """Folder of the study; {name} is filled in. Each run is a folder in it."""
    train: str
    """Training config (YAML) that every run starts from, unless it names its own."""
    set: dict[str, Any] = {}
    """Keys (with dots) of that config that are other values in every run that starts from it."""
    runs: dict[str, dict[str, Any]] = Field(min_length=1)
    """The runs in order: a name, and the keys in which it differs. Its key `train` names another
    config to start from; {study} in a value is the folder of the runs."""
    seeds: tuple[int, ...] = ()
    """Seeds with each of which all runs are made, in a folder of its own; []: once, with the seed
    of their configs."""
    evaluate: EvalConfig = EvalConfig()
    """Config of the evaluation, by the keys that `vistok eval --help` prints."""
    correlate: bool = False
    """true: the report correlates rFID and pFID of the runs with gFID of their generators."""
    only: tuple[str, ...] = ()
    """Names of the runs to train and evaluate, besides those that they refer to; [] = all."""

    @field_validator("out")
    @classmethod
    def _fills(cls, out: str) -> str:
        try:
            out.format(name="")
        except (LookupError, ValueError, AttributeError):
            raise InputError(f"{out!r}: only {{name}} is filled in; write {{{{ for a {{") from None
        return out

    @field_validator("runs")
    @classmethod
    def _folders(cls, runs: dict[str, Any]) -> dict[str, Any]:
        for name in runs:
            if not _NAME.fullmatch(name):
                raise InputError(f"'{name}' is no folder name; use letters, digits, . _ -")
        return runs

    @field_validator("evaluate")
    @classmethod
    def _own_report(cls, evaluate: Any) -> Any:
        if evaluate.report is not None:
            raise InputError("report: a study writes report.html into its own folder")
        return evaluate

    @field_validator("only", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one(cls, only: Any) -> Any:
        return (only,) if isinstance(only, str) else only

    @model_validator(mode="after")
    def _known(self) -> StudyConfig:
        for name in self.only:
            if name not in self.runs:
                raise InputError(f"only={name}: no such run; the study has {', '.join(self.runs)}")
        return self

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
            raise InputError(f"{list(seeds)}: expected different seeds of 0 or more")
        return seeds

    @property
    def folder(self) -> Path:
        return Path(self.out.format(name=self.name))

    def place(self, seed: int | None) -> Path:
        """Folder of the runs of one seed."""
        return self.folder if seed is None else self.folder / f"seed{seed}"


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study of a YAML file; ConfigError says what is wrong, in one line."""
    own, theirs = [], {}
    for override in overrides:
        (head, *_), text = split(override)
        if head in StudyConfig.model_fields:
            own.append(override)
        else:
            theirs[override.partition("=")[0]] = text
    tree = read_yaml(path, own)
    study = validate(StudyConfig, tree, str(path))
    # Text, as it stood on the command line: it is read with the config, like the train command's.
    last = {
        name: changes if "train" in changes else {**changes, **_raw(theirs)}
        for name, changes in study.runs.items()
    }
    return study.model_copy(update={"runs": last})


class _Raw(str):
    """A value that is YAML text already."""


def _raw(changes: Mapping[str, str]) -> dict[str, _Raw]:
    return {key: _Raw(text) for key, text in changes.items()}


def run_config(study: StudyConfig, name: str, seed: int | None = None) -> TrainConfig:
    """The whole training config of one run, of one of the study's seeds if it has some."""
    if seed is None and study.seeds:
        seed = study.seeds[0]
    place, changes = study.place(seed), dict(study.runs[name])
    base = changes.pop("train", None)
    if base is None:
        changes = {**study.set, **changes}
    if seed is not None:
        changes = {"seed": seed, **changes}
    changes |= {"name": name, "out": str(place / name)}
    overrides = [f"{key}={_text(_placed(value, str(place)))}" for key, value in changes.items()]
    base = study.train if base is None else str(base)
    return validate(TrainConfig, read_yaml(base, overrides), f"runs.{name} ({base})")


def _text(value: Any) -> str:
    return value if isinstance(value, _Raw) else json.dumps(value)


def _placed(value: Any, place: str) -> Any:
    """A value with the folder of the runs in place of {study} in its texts."""
    if isinstance(value, dict):
        return {key: _placed(one, place) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_placed(one, place) for one in value]
    if isinstance(value, str):
        return type(value)(value.replace("{study}", place))
    return value


def run_study(study: StudyConfig, config: EvalConfig) -> tuple[Results, Path]:
    """Train what is missing, evaluate, write the report: (results, path of the report).

    With `only`, the report of a single run lies in its own folder, that of several in `_only`.
    """
    from vistok.eval.measure import evaluate
    from vistok.eval.report.page import write_report

    only = study.only
    configs = {  # mistakes show before any training
        seed: {name: run_config(study, name, seed) for name in study.runs}
        for seed in study.seeds or (None,)
    }
    for seed, given in configs.items():
        wanted = needed(given, only)
        configs[seed] = {name: one for name, one in given.items() if name in wanted}
    runs = [one for given in configs.values() for one in given.values()]
    evaluated = [one for one in runs if kind_of(one) != "job"]
    if not any(kind_of(one) == "tokenizer" for one in evaluated):
        raise ConfigError(f"{study.train}: no run trains a tokenizer; a study evaluates some")
    folder = study.folder
    if only:  # the report of all runs is not replaced by one of some
        alone = len(runs) == 1
        folder = Path(runs[0].folder) if alone else folder / "_only"
    target = folder / "report.html"
    keys = {run_key({"name": one.name, "folder": one.folder}) for one in evaluated}
    place(target, keys, config.protocols, config.overwrite)  # before any training
    make(runs, on_cpu=config.torch_device.type == "cpu")
    results = evaluate([one.folder for one in evaluated], config)
    results = _with_facts(study, results, next(iter(configs.values())))
    write_report(results, target, config.overwrite)
    return results, target


def evaluation_of(study: StudyConfig, device: Any) -> EvalConfig:
    """The config of the study's evaluation; ConfigError for what can be seen before training."""
    change: dict[str, Any] = {"device": str(device)}
    if study.evaluate.cache is None:  # outcomes are kept with the study
        change["cache"] = str(study.folder / "eval_cache")
    if study.evaluate.gfid.probe is not None:
        recipe(study.evaluate.gfid.probe)
    return study.evaluate.model_copy(update=change)


def _with_facts(study: StudyConfig, results: Results, names: Iterable[str]) -> Results:
    """Results with the study's config among the facts, and the verdict if it asks for one."""
    facts: dict[str, Any] = {
        "name": study.name,
        "runs": {name: dict(study.runs[name]) for name in names},
        "train": study.train,
        "set": dict(study.set),
        "seeds": list(study.seeds),
    }
    if study.correlate:
        from vistok.eval.study.verdict import verdict

        facts |= verdict(results)
    if told := sentences(results):
        facts["sentences"] = [*facts.get("sentences", ()), *told]
    return results.model_copy(update={"facts": {**results.facts, "study": facts}})
