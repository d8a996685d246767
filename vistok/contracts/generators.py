"""Checks of generators, and tokens of every shape that one of them can model."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import nn

from vistok.config import Config, validate, validate_part
from vistok.config.registry import build, entries
from vistok.contracts.case import Case
from vistok.contracts.check import check, expect, expect_equal, expect_gradients, expect_shape
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators import Generator, load_generator
from vistok.tokens import Tokens, TokenSpec

SPECS: dict[str, dict[str, Any]] = {
    "none": {"blocks": ((4,),)},
    "grid": {"blocks": ((2, 2),)},
    "token": {"blocks": ((4,),), "prefix": "token"},
    "block": {"blocks": ((1,), (3,)), "prefix": "block"},
    "per_block": {"blocks": ((2,), (2,)), "prefix": "per_block"},
    "scales": {"blocks": ((1, 1), (2, 2)), "prefix": "block"},
}
CONDITION = Condition(label=torch.tensor([0, 1, 1]))
INDEX = torch.arange(3)


def tokens_of(spec: TokenSpec, count: int = 3) -> Tokens:
    """Random tokens of a spec, always the same."""
    generator = torch.Generator().manual_seed(0)
    size = (count, spec.length)
    if not spec.vocab:
        return Tokens(spec, values=torch.randn(*size, spec.dim, generator=generator))
    codes = [torch.randint(v, size, generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(codes, -1))


def held(tokens: Tokens) -> torch.Tensor:
    """Codes, or values if they are continuous."""
    return tokens.values if tokens.indices is None else tokens.indices


def lively(model: nn.Module) -> nn.Module:
    """All weights moved, so that everything has an influence."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


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


def modeled(kind: str, config: Config, **wanted: Any) -> TokenSpec:
    """These tokens if a generator can model them, else others of the same vocabulary; continuous
    ones, of three channels, for one that models no codes."""
    part = entries("generator")[kind].part
    shapes = [{"blocks": ((4,),), **wanted}, *SPECS.values(), {"blocks": ((4,),), "vocab": (16,)}]
    shapes.append({**SPECS["scales"], "vocab": (16,)})
    specs = [TokenSpec(**{"vocab": wanted.get("vocab", (16,)), **shape}) for shape in shapes]
    specs += [TokenSpec(**{**shape, "vocab": (), "dim": 3}) for shape in shapes]
    return next(spec for spec in specs if part.unable(config, spec) is None)


def _made(case: Case) -> tuple[Generator, TokenSpec]:
    """The generator with two classes, if it takes some, and tokens that it can model."""
    tree = case.tree()
    config = validate(type(case.config), tree | {"condition": tree["condition"] | {"classes": 2}})
    try:
        spec = modeled(case.entry.kind, config)
    except StopIteration:
        expect(False, "unable() refuses every kind of tokens; expected None for some of them")
    torch.manual_seed(0)
    return build(config, spec, codes_of(spec) if config.wants_codes else None), spec


@check("generator", name="training: a finite loss, gradients in every parameter, bf16")
def training(case: Case) -> None:
    model, spec = _made(case)
    tokens, draws = tokens_of(spec), model.train().draw(INDEX, Rng(0), Progress(0, 1))
    scalars = lively(model)(tokens, CONDITION, draws)
    expect("loss" in scalars, f"forward gives {sorted(scalars)}; expected 'loss' among them")
    for name, value in scalars.items():
        expect_shape(f"'{name}'", value, ())
        expect(bool(value.isfinite()), f"'{name}' is {float(value)}; expected a number")
    scalars["loss"].backward()
    expect_gradients(model, "the loss")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens, CONDITION, draws)["loss"]
    expect(bool(cast.isfinite()), "the loss is not finite under bf16; expected a number")


@check("generator", name="evaluation: sums over counts, whatever the batch")
def evaluation(case: Case) -> None:
    model, spec = _made(case)
    model, tokens = lively(model).eval(), tokens_of(spec)
    whole = model.evaluate(tokens, CONDITION)
    same = tuple(whole) == tuple(model.metrics)
    expect(same, f"evaluate gives {sorted(whole)}; expected `metrics`, {model.metrics}")
    judge, better = model.judged_by
    expect(judge in whole, f"judged_by names '{judge}'; expected one of {model.metrics}")
    expect(better in (-1, 1), f"judged_by says {better}; expected 1 or -1")
    rows = [slice(0, 1), slice(1, 3)]
    parts = [model.evaluate(tokens.select(r), CONDITION.select(r)) for r in rows]
    for name, (total, count) in whole.items():
        counted = sum(part[name][1] for part in parts)
        expect(count == counted, f"'{name}' counts {count} in one batch and {counted} in two")
        added = sum(float(part[name][0]) for part in parts)
        near = abs(float(total) - added) <= 1e-4 * max(1.0, abs(added))
        expect(near, f"'{name}' sums to {float(total):.6g} in one batch and {added:.6g} in two")


@check("generator", name="samples: of its spec, keyed by seed and sample, at every length")
def samples(case: Case) -> None:
    model, spec = _made(case)
    model = lively(model).train()
    whole = model.sample(CONDITION, index=INDEX, seed=3).check()
    expect(model.training, "sampling leaves evaluation mode behind; expected the mode before")
    expect(whole.spec == spec, f"samples have {whole.spec}; expected the spec {spec}")
    one = lambda i: model.sample(CONDITION.select(slice(i, i + 1)), index=INDEX[i : i + 1], seed=3)
    parts, close = torch.cat([held(one(i)) for i in range(3)]), 0.0 if spec.vocab else 1e-4
    expect_equal("samples of three batches", parts, held(whole), "those of one batch", close)
    other = held(model.sample(CONDITION, index=INDEX, seed=4))
    expect(not torch.equal(other, held(whole)), "two seeds give one sample; expected others")
    for length in spec.eval_lengths[:-1]:
        part = model.sample(CONDITION, index=INDEX, seed=3, length=length).check()
        wanted = held(whole.prefix(length))
        prefix = "prefixes of whole ones"
        expect_equal(f"samples of length {length}", held(part), wanted, prefix, close)


@check("generator", name="save_pretrained and from_pretrained give the same model")
def saved(case: Case) -> None:
    model, _ = _made(case)
    model = lively(model).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = load_generator(folder)
    wanted = held(model.sample(CONDITION, index=INDEX))
    expect_equal("its samples", held(again.sample(CONDITION, index=INDEX)), wanted, "before")
