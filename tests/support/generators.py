"""Generators of every registered kind in small, and tokens that each can model."""

from __future__ import annotations

import re

import torch
from torch import nn

import vistok.generators
import vistok.quantizers  # noqa: F401  (registers generators and quantizers)
from vistok.config import Config, validate, validate_part
from vistok.config.registry import build, entries
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.tokens import Tokens, TokenSpec

KINDS = list(entries("generator"))
SPECS = {
    "none": {"blocks": ((4,),)},
    "grid": {"blocks": ((2, 2),)},
    "token": {"blocks": ((4,),), "prefix": "token"},
    "block": {"blocks": ((1,), (3,)), "prefix": "block"},
    "per_block": {"blocks": ((2,), (2,)), "prefix": "per_block"},
    "scales": {"blocks": ((1, 1), (2, 2)), "prefix": "block"},
}
CONDITION = Condition(label=torch.tensor([0, 1, 1]))
INDEX = torch.arange(3)


def small(kind: str, vocab: tuple[int, ...] = (16,), **changes) -> Config:
    tree = entries("generator")[kind].config.tiny().model_dump() | changes
    if max(vocab) > 2**16 and "regroup" in tree:
        tree["regroup"] = (64, 4096)
    return validate(entries("generator")[kind].config, tree)


def tokens_of(spec: TokenSpec, count: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    size = (count, spec.length)
    codes = [torch.randint(v, size, generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(codes, -1))


def lively(model: nn.Module) -> nn.Module:
    """All weights moved, so that everything has an influence."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def made(kind: str, spec: TokenSpec, **changes) -> Generator:
    torch.manual_seed(0)
    config = small(kind, spec.vocab, condition={"classes": 2}, **changes)
    able = entries("generator")[kind].part.unable(config, spec) is None
    return build(config, spec, codes_of(spec) if config.wants_codes and able else None)


def codes_of(spec: TokenSpec) -> nn.Module:
    """A quantizer whose tokens have this spec: the code vectors of a generator that reads them."""
    scales, size = [list(block) for block in spec.blocks], spec.vocab[0]
    atom = {"kind": "vq", "codebook_size": size, "dim": 4, "l2_norm": False, "init": "normal"}
    if len(spec.vocab) > 1 or size > 2**16:
        bits = size.bit_length() - 1
        atom = {"kind": "lfq", "bits": bits * len(spec.vocab), "factor_bits": bits}
    tree = {"kind": "multi_scale", "scales": scales, "quantizer": atom}
    tree = tree if len(scales) > 1 else atom
    return build(validate_part("quantizer", tree))


def spec_for(kind: str, **wanted) -> TokenSpec:
    """These tokens if the kind can model them, else others of the same vocabulary that it can."""
    part, config = entries("generator")[kind].part, small(kind)
    shapes = [{"blocks": ((4,),), **wanted}, *SPECS.values(), {"blocks": ((4,),), "vocab": (16,)}]
    shapes.append({**SPECS["scales"], "vocab": (16,)})
    specs = [TokenSpec(**{"vocab": wanted.get("vocab", (16,)), **shape}) for shape in shapes]
    return next(spec for spec in specs if part.unable(config, spec) is None)


def refuses(kind: str, spec: TokenSpec, fails) -> bool:
    """True if the kind cannot model the tokens, which it then says with those that can."""
    reason = entries("generator")[kind].part.unable(small(kind, spec.vocab), spec)
    if reason is not None:
        with fails(ValueError, f"kind={kind} ", re.escape(reason), "for tokens of .* use "):
            made(kind, spec)
    return reason is not None
