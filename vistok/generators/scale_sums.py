"""The tokenizer's quantizer as a next-scale generator holds it: a copy that never trains.

Generators know no quantizer. What they read of one is `partial(indices, blocks, onto)`, the sum of
its first scales on a grid, and `value_dim`, the width of that; the registry builds it anew from the
config that a saved generator holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, cells
from vistok.frozen.files import hollow
from vistok.generators.base import SavedCodes
from vistok.storage.hollow import whole
from vistok.tokens import TokenSpec


def copied_quantizer(
    codes: nn.Module | None, config: Any, spec: TokenSpec
) -> tuple[nn.Module, Any]:
    """(the quantizer with its weights as buffers, its config), of the tokens `spec`.

    Args:
        codes: the tokenizer's quantizer; or `SavedCodes`, if weights of `config` follow.
        config: of a quantizer, or None. That of `codes` is taken before it.
    Raises InputError for a quantizer of other tokens, or without scales.
    """
    if codes is None:
        raise InputError(
            "kind=next_scale reads the sums of scales of the tokenizer's quantizer; give "
            "codes=tokenizer.quantizer"
        )
    saved = isinstance(codes, SavedCodes)
    config = config if saved else codes.config
    if config is None and hollow():
        return UnknownSums(spec.dim), None
    if config is None:
        raise ConfigError(
            "quantizer=null: a saved next_scale generator holds the config of its tokenizer's "
            "quantizer; save it again"
        )
    with whole():  # its sums are tried below
        quantizer = build(config)
    if quantizer.vocab != spec.vocab:
        raise InputError(
            f"quantizer: its codes are of vocab={quantizer.vocab}; expected {spec.vocab}, as the "
            "tokens have it"
        )
    if not hollow():  # it says itself if it has no scales, or others
        zeros = torch.zeros(1, spec.length, len(spec.vocab), dtype=torch.long)
        quantizer.partial(zeros, 1, spec.blocks[-1])
    if not saved:
        quantizer.load_state_dict(codes.state_dict())
    return _frozen(quantizer).eval(), config


class UnknownSums(nn.Module):
    """Stands for the quantizer where shapes alone are needed and no config names it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value_dim = dim

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        return torch.zeros(len(indices), cells(onto), self.value_dim, device=indices.device)


def _frozen(part: nn.Module) -> nn.Module:
    """The part with buffers in place of its parameters: saved, moved and copied with them."""
    for module in part.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return part
