"""The config of a study: its runs, their seeds, its evaluation, its claims, and its scales.

A study is written at the size of a small machine, scale `cpu`. `scales` holds what is other at
another one: `scale=gpu` lays those keys over the file's own, and puts all that is made into folders
of its own, so that results of two scales never meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from vistok.config import Config, read_yaml, validate
from vistok.config.names import nearest
from vistok.config.overrides import apply, merge, split
from vistok.core.errors import InputError
from vistok.eval.config import EvalConfig
from vistok.eval.study.claims import ClaimConfig

OWN = "cpu"  # the scale of the file as it stands
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ScaleConfig(Config):
    """What is other at another scale; anything that is not named stays."""

    train: str | None = None
    """Training config that every run starts from."""
    set: dict[str, Any] = {}
    """Keys laid over the study's `set`."""
    runs: dict[str, dict[str, Any]] = {}
    """Keys laid over those of each run; a name that the study does not have is a further run."""
    evaluate: dict[str, Any] = {}
    """Keys laid over those of the evaluation."""
    seeds: tuple[int, ...] | None = None
    """Seeds in place of the study's."""


class StudyConfig(Config):
    name: str = "study"
    """Name of the study."""
    out: str = "runs/studies/{name}"
    """Folder of the study; {name} is filled in. Each run is a folder in it."""
    pool: str | None = None
    """Folder that holds the runs, and what the evaluation keeps, in place of `out`: studies that
    name the same pool share them. A run of one name and seed is made once for all of them."""
    train: str
    """Training config (YAML) that every run starts from, unless it names its own."""
    set: dict[str, Any] = {}
    """Keys (with dots) of that config that are other values in every run that starts from it."""
    runs: dict[str, dict[str, Any]] = Field(min_length=1)
    """The runs in order: a name, and the keys in which it differs. Its key `train` names another
    config to start from, its key `seeds` seeds of its own ([]: made once, for all seeds). In a
    value {study} is the folder of the runs of its seed, {pool} the one of those without."""
    seeds: tuple[int, ...] = ()
    """Seeds with each of which all runs are made, in a folder of its own; []: once, with the seed
    of their configs."""
    evaluate: EvalConfig = EvalConfig()
    """Config of the evaluation, by the keys that `vistok eval --help` prints."""
    correlate: bool = False
    """true: the report correlates rFID and pFID of the runs with gFID of their generators."""
    claims: tuple[ClaimConfig, ...] = ()
    """Sentences of papers that the report puts to the test, each with a verdict."""
    only: tuple[str, ...] = ()
    """Names of the runs to train and evaluate, besides those that they refer to; [] = all."""
    scale: str = OWN
    """Name of a scale in `scales`; cpu = the study as its file has it."""
    scales: dict[str, ScaleConfig] = {}
    """What is other at another scale, by its name."""

    @field_validator("out", "pool")
    @classmethod
    def _fills(cls, out: str | None) -> str | None:
        try:
            if out is not None:
                out.format(name="")
        except (LookupError, ValueError, AttributeError):
            raise InputError(f"{out!r}: only {{name}} is filled in; write {{{{ for a {{") from None
        return out

    @field_validator("runs")
    @classmethod
    def _folders(cls, runs: dict[str, Any]) -> dict[str, Any]:
        for name, changes in runs.items():
            if not _NAME.fullmatch(name):
                raise InputError(f"'{name}' is no folder name; use letters, digits, . _ -")
            own = changes.get("seeds", ())
            if not isinstance(own, list | tuple) or not all(type(one) is int for one in own):
                raise InputError(f"{name}.seeds={own!r}: expected a list of seeds, [0, 1, 2]")
            _different(own, f"{name}.seeds=")
        return runs

    @field_validator("scales")
    @classmethod
    def _other(cls, scales: dict[str, Any]) -> dict[str, Any]:
        for name in scales:
            if name == OWN or not _NAME.fullmatch(name):
                raise InputError(f"'{name}': expected another name than {OWN}, such as gpu")
        return scales

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

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        _different(seeds)
        return seeds

    @model_validator(mode="after")
    def _known(self) -> StudyConfig:
        for name in self.only:
            if name not in self.runs:
                raise InputError(f"only={name}: no such run; the study has {', '.join(self.runs)}")
        if self.scale not in (OWN, *self.scales):
            raise InputError(
                f"scale={self.scale}: no such scale; {nearest(self.scale, (OWN, *self.scales))}"
            )
        if not self.seeds:
            for name, changes in self.runs.items():
                if "seeds" in changes:
                    raise InputError(
                        f"runs.{name} has seeds of its own, so the others need some too: seeds: [0]"
                    )
        ids = [claim.id for claim in self.claims]
        for claim in self.claims:
            if ids.count(claim.id) > 1:
                raise InputError(f"claims: two have the id '{claim.id}'; give each its own")
            for name in claim.compared:
                if name not in self.runs:
                    raise InputError(
                        f"claims: {claim.id}: no run '{name}'; {nearest(name, self.runs)}"
                    )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the study's report."""
        return self._at_scale(self.out)

    @property
    def home(self) -> Path:
        """Folder of the runs: the pool, if there is one."""
        return self.folder if self.pool is None else self._at_scale(self.pool)

    def place(self, seed: int | None) -> Path:
        """Folder of the runs of one seed."""
        return self.home if seed is None else self.home / f"seed{seed}"

    def seeds_of(self, name: str) -> tuple[int | None, ...]:
        """Seeds of a run; (None,) for one that is made once."""
        return tuple(self.runs[name].get("seeds", self.seeds)) or (None,)

    def _at_scale(self, folder: str) -> Path:
        found = Path(folder.format(name=self.name))
        return found if self.scale == OWN else found.with_name(f"{found.name}-{self.scale}")


def _different(seeds: Sequence[int], what: str = "") -> None:
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise InputError(f"{what}{list(seeds)}: expected different seeds of 0 or more")


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study of a YAML file; ConfigError says what is wrong, in one line."""
    own, theirs = [], {}
    for override in overrides:
        (head, *_), text = split(override)
        if head in StudyConfig.model_fields:
            own.append(override)
        else:
            theirs[override.partition("=")[0]] = text
    study = validate(StudyConfig, read_yaml(path, own), str(path))
    if study.scale != OWN:
        tree = apply(_scaled(read_yaml(path), study.scales[study.scale]), own)
        study = validate(StudyConfig, tree, f"{path} at scale={study.scale}")
    # Text, as it stood on the command line: it is read with the config, like the train command's.
    last = {
        name: changes if "train" in changes else {**changes, **raw(theirs)}
        for name, changes in study.runs.items()
    }
    return study.model_copy(update={"runs": last})


def _scaled(tree: Mapping[str, Any], scale: ScaleConfig) -> dict[str, Any]:
    """The tree of a study's file with the keys of a scale laid over it."""
    runs = tree.get("runs", {})
    new = {name: {**runs.get(name, {}), **changes} for name, changes in scale.runs.items()}
    changed: dict[str, Any] = {
        "set": {**tree.get("set", {}), **scale.set},
        "runs": {**runs, **new},
        "evaluate": merge(tree.get("evaluate", {}), scale.evaluate),
    }
    if scale.train is not None:
        changed["train"] = scale.train
    if scale.seeds is not None:
        changed["seeds"] = list(scale.seeds)
    return {**tree, **changed}


class Raw(str):
    """A value that is YAML text already."""


def raw(changes: Mapping[str, str]) -> dict[str, Raw]:
    return {key: Raw(text) for key, text in changes.items()}
