"""Runs that have nothing left to train: a config that asks for something else is refused.

Else the old model would stand under the new config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.train.config import TrainConfig

# Settings of the optimization; where and how exactly it is computed may differ by machine.
_TRAINED = ("optimizer", "warmup", "final_lr", "clip")
_COMPUTED = ("optimizer.precision",)


def check_finished(
    config: TrainConfig, step: int, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """ConfigError if a run is done with its steps and the config wants fewer, or other ones.

    Args:
        step: of the checkpoint. before, now: settings of the checkpoint and of the config, flat.
    """
    if step < config.steps:
        return
    again = "use resume=never to train anew, or another out"
    if step > config.steps and config.resume == "auto":
        raise ConfigError(
            f"steps={config.steps}: the run in {config.folder} has done {step} steps; use steps="
            f"{step} or more, resume=PATH of an earlier checkpoint, or {again}"
        )
    for key in sorted({*before, *now}):
        if key.split(".")[0] not in _TRAINED or key in _COMPUTED:
            continue
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{key}: the {step} steps of the run in {config.folder} were trained with "
                f"{before.get(key)!r}, the config says {now.get(key)!r}, and no step is left; "
                f"raise steps, {again}"
            )
