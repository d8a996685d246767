"""Runs that have nothing left to train: a config that asks for something else is refused.

Else the old model would stand under the new config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.config.overrides import leaves
from vistok.train.checkpoint.files import Snapshot
from vistok.train.config import TrainConfig

# Settings of the optimization; where and how exactly it is computed may differ by machine.
_TRAINED = ("optimizer", "warmup", "final_lr", "clip")
_COMPUTED = ("optimizer.precision",)


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that a checkpoint does not bind and its weights depend on, flat, JSON."""
    tree = config.model_dump(mode="json", include={*_TRAINED})
    return {key: x for key, x in leaves(tree, lists=True) if key not in _COMPUTED}


def check_finished(config: TrainConfig, snapshot: Snapshot) -> None:
    """ConfigError if a run is done with its steps and the config wants fewer, or other ones."""
    step = snapshot.step
    if step < config.steps:
        return
    again = "use resume=never to train anew, or another out"
    if step > config.steps and config.resume == "auto":
        raise ConfigError(
            f"steps={config.steps}: the run in {config.folder} has done {step} steps; use steps="
            f"{step} or more, resume=PATH of an earlier checkpoint, or {again}"
        )
    before: Mapping[str, Any] = snapshot.facts["settings"]
    for key, value in settings(config).items():
        if before.get(key, value) != value:
            raise ConfigError(
                f"{key}: the {step} steps of the run in {config.folder} were trained with "
                f"{before[key]!r}, the config says {value!r}, and no step is left; raise steps, "
                f"{again}"
            )
