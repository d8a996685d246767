"""The trainings and jobs of a study, in order: what is missing is made, what is there is left.

A run may refer to earlier ones by the paths in its config. Beside each run lies what it was made
of; if that has changed since, the run's own command is asked again: it resumes, or says in one line
why it cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from vistok.config import ConfigError
from vistok.config.bounded import read_json
from vistok.config.overrides import leaves
from vistok.config.yaml_files import read_plain_yaml
from vistok.data.pairs import RECORD
from vistok.data.token_cache import META
from vistok.eval.systems.training import finished, train
from vistok.storage.files import write_text
from vistok.storage.hub import WEIGHTS
from vistok.storage.trained import RUN_CONFIG
from vistok.storage.weights import sha256
from vistok.train.config import TrainConfig

_MADE_OF = ".made_of.json"  # beside a run: {file of an earlier run: its sha256}
_TRAINED = ("tokenizer", "generator", "classifier")
_JOBS = ("cache", "preserve")
_QUANTIZED = "quantize"  # a job that makes a tokenizer
_OUTCOMES = (
    f"model/{WEIGHTS}",
    *(f"{split}/{name}" for split in ("train", "val") for name in (META, RECORD)),
)


def kind_of(config: TrainConfig) -> Literal["tokenizer", "generator", "classifier", "job"]:
    """The kind of a run; ConfigError for one that has no place in a study. A classifier is made for
    the losses of other runs, and not evaluated."""
    kind = config.task.kind
    if kind in _JOBS:
        return "job"
    if kind == _QUANTIZED:
        return "tokenizer"
    if kind not in _TRAINED:
        raise ConfigError(
            f"runs.{config.name}: its task is {kind}; a study is of tasks of kind "
            f"{', '.join((*_TRAINED, *_JOBS, _QUANTIZED))}"
        )
    return kind


def needed(configs: Mapping[str, TrainConfig], only: Sequence[str]) -> set[str]:
    """Names of the runs that are made: `only` and all that these refer to; all if it is empty.

    ConfigError for a run that refers to itself or to a later one.
    """
    names, before = list(configs), {}
    for place, name in enumerate(names):
        before[name] = [one.name for one in _earlier(configs[name], configs.values())]
        late = [one for one in before[name] if names.index(one) >= place]
        if late:
            raise ConfigError(
                f"runs.{name}: refers to {late[0]}, which is not made before it; put it further up"
            )
    wanted = set(only or names)
    for name in reversed(names):
        if name in wanted:
            wanted |= set(before[name])
    return wanted


def make(runs: Sequence[TrainConfig], on_cpu: bool) -> None:
    """Make the runs in order; TrainingError, one line, for one that does not come to its end."""
    for number, one in enumerate(runs, 1):
        made_of, is_job = _made_of(one, runs), one.task.kind in (*_JOBS, _QUANTIZED)
        said = f"{_shown(one, runs)} ({number} of {len(runs)})"
        if (_written if is_job else finished)(one) and made_of == _recorded(one):
            click.echo(f"{said}: is there", err=True)
            continue
        click.echo(f"{said}: {'writing' if is_job else 'training'}", err=True)
        train(one, on_cpu=on_cpu)
        if made_of:
            write_text(Path(one.folder) / _MADE_OF, json.dumps(made_of, indent=1) + "\n")


def _shown(run: TrainConfig, runs: Sequence[TrainConfig]) -> str:
    """The name of a run, with its seed where others have its name."""
    twins = [one for one in runs if one.name == run.name]
    return run.name if len(twins) == 1 else f"{run.name}, seed {run.seed}"


def _written(config: TrainConfig) -> bool:
    """True if exactly this job came to its end: it writes its config last."""
    try:
        kept = read_plain_yaml(Path(config.folder) / RUN_CONFIG)
    except (OSError, ValueError):
        return False
    asked = config.model_dump(mode="json")
    if isinstance(kept, dict) and asked["data"] is None:  # they were those of a tokenizer's run
        asked["data"] = kept.get("data")
    return kept == asked


def _earlier(config: TrainConfig, runs: Iterator[TrainConfig] | Any) -> list[TrainConfig]:
    """The runs whose folders the config of another names."""
    return [one for one in runs if names_folder(config, one.folder)]


def names_folder(config: TrainConfig, folder: str) -> bool:
    """True if some text in a config, besides its own folder, is this folder or lies in it."""
    tree = config.model_dump(mode="json")
    del tree["out"]
    texts = [value for _, value in leaves(tree, lists=True) if isinstance(value, str)]
    return any(f"{text}/".startswith(f"{folder}/") for text in texts)


def _made_of(config: TrainConfig, runs: Sequence[TrainConfig]) -> dict[str, str]:
    """{file of an earlier run: its sha256} of what a run is made of and is there already."""
    folders = [Path(one.folder) for one in _earlier(config, runs)]
    files = [folder / name for folder in folders for name in _OUTCOMES]
    return {str(file): sha256(file) for file in files if file.is_file()}


def _recorded(config: TrainConfig) -> dict[str, str]:
    try:
        return read_json(Path(config.folder) / _MADE_OF)
    except (OSError, ValueError):
        return {}
