"""Generators of every registered kind in small, and tokens that each can model."""

from __future__ import annotations

import re

import torch

from vistok.config import Config, validate
from vistok.config.registry import build, entries
from vistok.contracts.generators import (
    CONDITION,
    INDEX,
    SPECS,
    codes_of,
    held,
    lively,
    modeled,
    tokens_of,
)
from vistok.generators import Generator
from vistok.tokens import Tokens, TokenSpec

__all__ = ["CONDITION", "INDEX", "KINDS", "SPECS", "held", "lively", "made", "same", "spec_for",
           "tokens_of"]  # fmt: skip

KINDS = list(entries("generator"))


def small(kind: str, vocab: tuple[int, ...] = (16,), **changes) -> Config:
    tree = entries("generator")[kind].config.tiny().model_dump() | changes
    if max(vocab, default=0) > 2**16 and "regroup" in tree:
        tree["regroup"] = (64, 4096)
    return validate(entries("generator")[kind].config, tree)


def made(kind: str, spec: TokenSpec, **changes) -> Generator:
    torch.manual_seed(0)
    config = small(kind, spec.vocab, condition={"classes": 2}, **changes)
    able = entries("generator")[kind].part.unable(config, spec) is None
    return build(config, spec, codes_of(spec) if config.wants_codes and able else None)


def same(one: Tokens | torch.Tensor, other: Tokens | torch.Tensor) -> bool:
    """Equal codes, or values that are equal but for rounding."""
    one, other = (each if isinstance(each, torch.Tensor) else held(each) for each in (one, other))
    if one.is_floating_point():
        return torch.allclose(one, other, atol=1e-4)
    return torch.equal(one, other)


def spec_for(kind: str, **wanted) -> TokenSpec:
    """These tokens if the kind can model them, else others of the same vocabulary that it can, or
    continuous ones."""
    return modeled(kind, small(kind), **wanted)


def refuses(kind: str, spec: TokenSpec, fails) -> bool:
    """True if the kind cannot model the tokens, which it then says with those that can."""
    reason = entries("generator")[kind].part.unable(small(kind, spec.vocab), spec)
    if reason is not None:
        with fails(ValueError, f"kind={kind} ", re.escape(reason), "for tokens of .* use "):
            made(kind, spec)
    return reason is not None
