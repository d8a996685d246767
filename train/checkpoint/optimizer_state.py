"""Optimizer state by parameter name, whole tensors: what any number of processes can load.

Settings (rates, decay, betas) are the config's and not saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vistok.runtime import distributed
from vistok.storage.weights import misfit
from vistok.train.checkpoint.files import CheckpointError


def optimizer_state(
    optimizers: list[torch.optim.Optimizer], module: nn.Module
) -> tuple[dict[str, Tensor], list[list[str]]]:
    """A module's optimizers: tensors `name/key`, and who moves which names.

    Names are the bare module's, so that a run with any wrapper can load them. Every rank must call
    it: sharded state is gathered.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    tensors = {
        f"{names[parameter]}/{key}": distributed.whole(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    return tensors, _moved(optimizers, names)


def load_optimizer(
    optimizers: list[torch.optim.Optimizer],
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    moved: list[list[str]],
    source: Path,
) -> None:
    """The inverse; CheckpointError if the optimizers move other parameters, or for state of another
    shape or type than theirs."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    if _moved(optimizers, names) != moved:
        raise CheckpointError(
            f"{source}: its optimizers moved other parameters; it was saved by another config: "
            "use resume=never"
        )
    owner = {
        names[parameter]: (optimizer, parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for optimizer in optimizers:
        optimizer.state.clear()
    for name, value in tensors.items():
        of, _, key = name.rpartition("/")
        if of not in owner:
            raise CheckpointError(
                f"{source}: state of an unknown parameter '{name}'; it is damaged"
            )
        optimizer, parameter = owner[of]
        wrong = misfit(value, parameter.dtype)
        if value.ndim and value.shape != parameter.shape:
            wrong = f"has shape {tuple(value.shape)}; expected {tuple(parameter.shape)}"
        if wrong is not None:
            raise CheckpointError(f"{source}: state '{name}' {wrong}; it is damaged")
        optimizer.state[parameter][key] = _placed(key, value, parameter)


def _placed(key: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    if key == "step" and not parameter.is_cuda:
        return value  # step counters stay where AdamW keeps them: on the CPU unless it is fused
    value = value.to(parameter.device)
    return distributed.shard_like(value, parameter) if value.shape == parameter.shape else value


def _moved(
    optimizers: list[torch.optim.Optimizer], names: Mapping[nn.Parameter, str]
) -> list[list[str]]:
    """Names of the parameters that each optimizer moves, sorted."""
    return [
        sorted(names[p] for group in optimizer.param_groups for p in group["params"])
        for optimizer in optimizers
    ]
