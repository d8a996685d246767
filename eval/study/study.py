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

Its claims (eval/study/claims) are judged on the numbers, and stand first in the report.

KEY=VALUE is a key of the study (evaluate.limit=256) or of every training config that starts from
the study's own (steps=100, data.train=...); the latter have the last word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vistok.config import ConfigError, read_yaml, validate
from vistok.eval.config import EvalConfig
from vistok.eval.report.claims import figures
from vistok.eval.report.files import place, run_key
from vistok.eval.report.stages import sentences
from vistok.eval.results.rows import Results
from vistok.eval.study.claims.judge import judge
from vistok.eval.study.claims.numbers import Made
from vistok.eval.study.config import Raw, StudyConfig, read_study
from vistok.eval.study.pool import check_pool
from vistok.eval.study.trainings import kind_of, make, names_folder, needed
from vistok.eval.systems.probe import recipe
from vistok.storage.files import write_text
from vistok.train.config import TrainConfig

__all__ = ["StudyConfig", "evaluation_of", "planned", "read_study", "run_config", "run_study"]


def run_config(study: StudyConfig, name: str, seed: int | None = None) -> TrainConfig:
    """The whole training config of one run, of one of its seeds if it has some.

    Args:
        seed: of a run that is made once, the seed of those that refer to it; None = its first.
    """
    own = study.seeds_of(name)
    seed = own[0] if seed is None or own == (None,) else seed
    place, changes = study.place(seed), dict(study.runs[name])
    base = changes.pop("train", None)
    changes.pop("seeds", None)
    if base is None:
        changes = {**study.set, **changes}
    if seed is not None:
        changes = {"seed": seed, **changes}
    changes |= {"name": name, "out": str(place / name)}
    folders = {"{study}": str(place), "{pool}": str(study.home)}
    overrides = [f"{key}={_text(_placed(value, folders))}" for key, value in changes.items()]
    base = study.train if base is None else str(base)
    return validate(TrainConfig, read_yaml(base, overrides), f"runs.{name} ({base})")


def _text(value: Any) -> str:
    return value if isinstance(value, Raw) else json.dumps(value)


def _placed(value: Any, folders: Mapping[str, str]) -> Any:
    """A value with folders in place of their names in its texts."""
    if isinstance(value, dict):
        return {key: _placed(one, folders) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_placed(one, folders) for one in value]
    if isinstance(value, str):
        text = str(value)
        for name, folder in folders.items():
            text = text.replace(name, folder)
        return type(value)(text)
    return value


def run_study(study: StudyConfig, config: EvalConfig) -> tuple[Results, Path]:
    """Train what is missing, evaluate, write the report: (results, path of the report).

    With `only`, the report of a single run lies in its own folder, that of several in `_only`.
    """
    from vistok.eval.measure import evaluate
    from vistok.eval.report.page import write_report

    only = study.only
    runs = planned(study)  # mistakes show before any training
    evaluated = [one for one in runs if kind_of(one) in ("tokenizer", "generator")]
    if not any(kind_of(one) == "tokenizer" for one in evaluated):
        raise ConfigError(f"{study.train}: no run trains a tokenizer; a study evaluates some")
    folder = study.folder
    if only:  # the report of all runs is not replaced by one of some
        alone = len(runs) == 1 and study.pool is None
        folder = Path(runs[0].folder) if alone else folder / "_only"
    target = folder / "report.html"
    keys = {run_key({"name": one.name, "folder": one.folder}) for one in evaluated}
    place(target, keys, config.protocols, config.overwrite)  # before any training
    if study.pool is not None:
        check_pool(runs)
    make(runs, on_cpu=config.torch_device.type == "cpu")
    results = evaluate([one.folder for one in evaluated], config)
    results = _with_facts(study, results, dict.fromkeys(one.name for one in runs))
    write_report(results, target, config.overwrite)
    for name, svg in figures(results).items():  # for papers and galleries
        path = target.parent / "claims" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        write_text(path, svg)
    return results, target


def planned(study: StudyConfig) -> list[TrainConfig]:
    """The configs of all runs that are made, in order, those of one seed after those of another;
    ConfigError for one that cannot be made, or refers to one that is not made before it."""
    seeds = dict.fromkeys(seed for name in study.runs for seed in study.seeds_of(name))
    given = {seed: None for seed in seeds if seed is not None} or {None: None}
    runs: dict[str, TrainConfig] = {}
    for seed in given:
        names = [n for n in study.runs if {seed, None} & set(study.seeds_of(n))]
        configs = {name: run_config(study, name, seed) for name in names}
        for one in configs.values():
            _check_seed(study, one, seed, [n for n in study.runs if n not in configs])
            kind_of(one)
        wanted = needed(configs, [name for name in study.only if name in configs])
        if study.only and not set(study.only) & set(configs):
            continue
        runs |= {one.folder: one for name, one in configs.items() if name in wanted}
    return list(runs.values())


def _check_seed(study: StudyConfig, run: TrainConfig, seed: int | None, others: list[str]) -> None:
    """ConfigError if a run refers to one that is not made with its seed."""
    for name in others:
        if names_folder(run, str(study.place(seed) / name)):
            raise ConfigError(
                f"runs.{run.name}: refers to {name}, which is not made with seed {seed}; add it "
                f"to runs.{name}.seeds"
            )


def evaluation_of(study: StudyConfig, device: Any) -> EvalConfig:
    """The config of the study's evaluation; ConfigError for what can be seen before training."""
    change: dict[str, Any] = {"device": str(device)}
    if study.evaluate.cache is None:  # outcomes are kept with the runs
        change["cache"] = str(study.home / "eval_cache")
    if study.evaluate.gfid.probe is not None:
        recipe(study.evaluate.gfid.probe)
    return study.evaluate.model_copy(update=change)


def _with_facts(study: StudyConfig, results: Results, names: Iterable[str]) -> Results:
    """Results with the study's config among the facts, and the verdicts that it asks for."""
    facts: dict[str, Any] = {
        "name": study.name,
        "scale": study.scale,
        "runs": {name: dict(study.runs[name]) for name in names},
        "train": study.train,
        "set": dict(study.set),
        "seeds": list(study.seeds),
    }
    if study.claims:
        made = made_of(study, results)
        facts["claims"] = [judge(claim, results, made) for claim in study.claims]
    if study.correlate:
        from vistok.eval.study.verdict import verdict

        facts |= verdict(results)
    if told := sentences(results):
        facts["sentences"] = [*facts.get("sentences", ()), *told]
    return results.model_copy(update={"facts": {**results.facts, "study": facts}})


def made_of(study: StudyConfig, results: Results) -> Made:
    """{name of a tokenizer among the results: (run of the study, seed)}, by their folders."""
    at = {
        str((study.place(seed) / name).resolve()): (name, seed)
        for name in study.runs
        for seed in study.seeds_of(name)
    }
    found = {}
    for run in results.runs:
        given = at.get(str(Path(run.get("folder") or "").resolve()))
        if run["kind"] == "tokenizer" and given is not None:
            found[run["name"]] = given
    return found
