"""Checks of quantizers: records, codes, neighbours, prefixes of blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistok.config.contract import lacks
from vistok.contracts.case import Case, with_values
from vistok.contracts.check import (
    Broken,
    Left,
    check,
    expect,
    expect_equal,
    expect_gradients,
    expect_shape,
)
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.rng import Rng


@check("quantizer", name="values, indices, queries and losses: shapes and types")
def records(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    quantizer, layout, spec = tokenizer.quantizer, tokenizer.layout, tokenizer.spec()
    _, found = case.quantized(tokenizer)
    values = (4, layout.count, quantizer.value_dim)
    expect(layout.dim == quantizer.value_dim, f"layout.dim={layout.dim}; expected value_dim")
    expect_shape("values [B, M, value_dim]", found.values, values, torch.float32)
    expect_shape("clean [B, M, value_dim]", found.clean, values, torch.float32)
    for name, loss in found.losses.items():
        expect_shape(f"losses['{name}']", loss, ())
        expect(bool(loss.isfinite()), f"losses['{name}'] is {float(loss)}; expected a number")
    unknown = set(quantizer.loss_weights) - set(found.losses)
    weighed = {name for name in unknown if quantizer.loss_weights[name]}
    expect(not weighed, f"loss_weights names {sorted(weighed)}, which `losses` lacks")
    if not spec.vocab:
        expect(found.indices is None, "vocab=() with indices; expected None for a continuous one")
        return
    length = layout.spec.length if tokenizer.encoder.stored is None else found.indices.shape[1]
    shape = (4, length, len(spec.vocab))
    expect_shape("indices [B, L, F]", found.indices, shape, torch.int64)
    high = torch.tensor(spec.vocab)
    inside = bool(((found.indices >= 0) & (found.indices < high)).all())
    expect(inside, f"indices lie outside of vocab={spec.vocab}; expected 0..V-1 of each factor")
    if found.queries is None:
        raise Left("no queries: latent_perturbation, pFID and revival of codes cannot run")
    expect_shape("queries [B, L, P, d]", found.queries[..., :1], (4, length, spec.branches, 1))


@check("quantizer", name="lookup(indices) gives exactly the values of evaluation")
def lookup(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    _, found = case.quantized(tokenizer)
    if found.indices is None:
        return
    looked = tokenizer.quantizer.lookup(found.indices)
    expect(looked.dtype == torch.float32, f"lookup gives {looked.dtype}; expected fp32")
    expect_equal("lookup(indices)", looked, found.clean, "`clean` of forward")
    expect_equal("values in evaluation", found.values, found.clean, "`clean`")


@check("quantizer", name="fp32 whatever autocast says")
def fp32(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    latents, plain = case.quantized(tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tokenizer.quantize(latents)
    expect_equal("values under autocast", cast.values, plain.values, "those without")
    if plain.indices is not None:
        expect_equal("indices under autocast", cast.indices, plain.indices, "those without")


@check("quantizer", name="gradients reach the latents through the codes")
def straight_through(case: Case) -> None:
    tokenizer = case.tokenizer().train()
    latents, _ = case.quantized(tokenizer)
    z = latents.values.detach().requires_grad_()
    values = tokenizer.quantize(with_values(latents, z)).values
    if values.requires_grad:
        values.square().sum().backward()
    expect(
        z.grad is not None and bool(z.grad.abs().sum() > 0),
        "values hand no gradient on to the latents; expected a straight-through estimator "
        "(vistok.quantizers.straight_through)",
    )
    expect(bool(z.grad.isfinite().all()), "the latents' gradient is not finite")


@check("quantizer", name="after_step, forget and a second step: scalars, and nothing left over")
def steps(case: Case) -> None:
    tokenizer = case.tokenizer().train()
    quantizer = tokenizer.quantizer
    for step in range(2):
        latents = tokenizer.latents(case.images(tokenizer).pixels)
        found = tokenizer.quantize(latents)
        quantizer.remember(found)
        sum(found.losses.values(), found.values.sum() * 0).backward()
        for name, value in quantizer.after_step(Rng(step)).items():
            expect_shape(f"event '{name}' of after_step", torch.as_tensor(value), ())
    quantizer.forget()
    expect_gradients(tokenizer.encoder, "the quantizer's values and losses")


@check("quantizer", name="neighbours: the nearest codes, each once, its own code first")
def neighbours(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    quantizer, spec = tokenizer.quantizer, tokenizer.spec()
    _, found = case.quantized(tokenizer)
    if found.indices is None:
        return
    if lacks(quantizer, "neighbours"):
        raise Left("no neighbours(): latent_perturbation and pFID cannot run")
    if found.queries is None:
        raise Broken("neighbours() without queries; expected Quantized.queries [B, L, P, d]")
    length, factors = found.indices.shape[1:]
    count, branches = min(3, _codes(spec)), spec.branches
    near = quantizer.neighbours(found.queries, count)
    shape = (4, length, branches, count, factors // branches)
    expect_shape("neighbours [B, L, P, count, F/P]", near, shape)
    own = near[:, :, :, 0].flatten(2)
    expect_equal("the nearest code", own, found.indices, "the code of forward")
    for row in near.flatten(0, 2):
        expect(len(row.unique(dim=0)) == count, "a code is its own neighbour; expected each once")
    zero = torch.zeros(4, length, branches, dtype=torch.long)
    rank0 = quantizer.perturb(found.queries, zero)
    expect_equal("the code of rank 0", rank0, found.indices, "the clean code")


def _codes(spec: Any) -> int:
    """Codes of one branch."""
    count = 1
    for size in spec.vocab[: len(spec.vocab) // spec.branches]:
        count *= size
    return count


@check("quantizer", name="latent perturbation replaces values and leaves indices clean")
def perturbation(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    quantizer, spec = tokenizer.quantizer, tokenizer.spec()
    latents, clean = case.quantized(tokenizer)
    if clean.indices is None or clean.queries is None:
        return
    if lacks(quantizer, "neighbours"):
        raise Left("latent perturbation was not checked: it needs neighbours()")
    ranks = torch.zeros(4, clean.indices.shape[1], spec.branches, dtype=torch.long)
    ranks[1, 0] = 1
    moved = tokenizer.quantize(latents, Draws(ranks=ranks, top_rank=1))
    expect_equal("indices under perturbation", moved.indices, clean.indices, "the clean ones")
    expect_equal("unperturbed samples", moved.values[[0, 2, 3]], clean.values[[0, 2, 3]], "clean")
    differs = not torch.equal(moved.values[1], clean.values[1])
    expect(differs, "rank 1 leaves the value as it was; expected the second nearest code's")


@check("quantizer", name="prefixes of blocks: keep is obeyed by lookup as by training")
def prefixes(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    spec = tokenizer.spec()
    if tokenizer._masked or not spec.vocab:  # the decoder hides what is missing
        return
    latents, clean = case.quantized(tokenizer)
    keep = torch.arange(4) % spec.max_prefix + 1
    trained = tokenizer.quantize(latents, Draws(keep=keep))
    looked = tokenizer.quantizer.lookup(clean.indices, keep)
    expect_equal("lookup(indices, keep)", looked, trained.values, "values of a pass with keep")
    expect_equal("indices under keep", trained.indices, clean.indices, "those of all blocks")


@check("quantizer", name="partial sums of its blocks, for next-scale generators")
def partial(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    blocks, grids = tokenizer.spec().blocks, tokenizer.layout.values
    _, found = case.quantized(tokenizer)
    if found.indices is None or len(blocks) == 1 or tokenizer._masked:
        return
    try:
        whole = tokenizer.quantizer.partial(found.indices, len(blocks), grids[0])
    except InputError:
        raise Left("no partial(): next_scale generators cannot run on its tokens") from None
    looked: Tensor = tokenizer.quantizer.lookup(found.indices)
    expect_equal("partial sums of all blocks", whole, looked, "lookup(indices)", 1e-5)


@check("quantizer", name="a batch of one token per image keeps its code")
def single(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    latents, whole = case.quantized(tokenizer)
    one = replace(latents, values=latents.values[:1])
    alone = tokenizer.quantize(one)
    expect_equal("values of one image", alone.values, whole.values[:1], "those in a batch", 1e-5)
