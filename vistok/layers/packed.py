"""Copies of modules for a run of many small steps: linear layers with weights packed once.

A step of sampling multiplies a few rows by every weight, so that it takes as long as reading the
weights does. A CPU's matrix product for such rows is two times faster on weights in oneDNN's
blocked layout, into which torch would bring them at every call. The layout is that of one machine
and costs a second copy of the weights: it belongs to a copy of the module that lives as long as the
run, so that training never meets it, and a run never meets old weights.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from vistok.layers.mlp import GatedMlp
from vistok.layers.packed_linear import PackedGatedMlp, PackedLinear
from vistok.layers.steps import StepTransformer
from vistok.layers.transformer import Transformer
from vistok.runtime.precision import has_bf16

M = TypeVar("M", bound=nn.Module)


def run_copy(module: M, dtype: torch.dtype | None = None, pack: bool = True) -> M:
    """A copy of a module for inference, which shares its parameters, or holds them in another dtype
    if one is given.

    Args:
        pack: pack its linear layers where that helps.
    """
    return _copy(module, dtype, {}, pack and _packs(module))


def _packs(module: nn.Module) -> bool:
    """True where products with packed weights are available: on CPUs with oneDNN. They do not know
    autocast."""
    if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        return False
    return all(one.device.type == "cpu" for one in module.parameters())


def _packable(linear: nn.Module, dtype: torch.dtype | None) -> bool:
    """True for a plain linear layer in a precision that the machine's products take."""
    if type(linear) is not nn.Linear:
        return False
    dtype = dtype or linear.weight.dtype
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16("cpu"))


def _copy(module: nn.Module, dtype: torch.dtype | None, made: dict, pack: bool) -> nn.Module:
    """The copy; `made` holds what is copied already, by the id of its original."""
    if id(module) in made:
        return made[id(module)]
    cast = lambda one: _cast(one, dtype, made)
    if pack and _packable(module, dtype):
        new = PackedLinear(cast(module.weight), cast(module.bias))
    elif pack and type(module) is GatedMlp and _packable(module.up, dtype):
        new = PackedGatedMlp(module, cast)
    else:
        steps = pack and type(module) is Transformer
        new = object.__new__(StepTransformer if steps else type(module))
        new.__dict__.update(module.__dict__)
        for name, held in module.__dict__.items():  # what belongs to a module that came before
            if type(held) is tuple and any(isinstance(one, nn.Module) for one in held):
                new.__dict__[name] = tuple(made.get(id(one), one) for one in held)
        new._parameters = {name: cast(one) for name, one in module._parameters.items()}
        new._buffers = {name: cast(one) for name, one in module._buffers.items()}
        new._modules = {
            name: None if one is None else _copy(one, dtype, made, pack)
            for name, one in module._modules.items()
        }
    made[id(module)] = new
    return new


def _cast(tensor: Tensor | None, dtype: torch.dtype | None, made: dict) -> Tensor | None:
    """The tensor, or a copy of it in another dtype; a tensor of two modules is copied once."""
    if tensor is None or dtype in (None, tensor.dtype) or not tensor.is_floating_point():
        return tensor
    if id(tensor) not in made:
        new = tensor.detach().to(dtype)
        made[id(tensor)] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    return made[id(tensor)]
