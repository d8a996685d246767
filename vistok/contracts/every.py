"""Checks of every part, and of every part that sits in a tokenizer."""

from __future__ import annotations

import copy
import json
import tempfile

import torch

from vistok.config import ConfigError, own_code, validate
from vistok.config.registry import families
from vistok.contracts.case import IN_A_TOKENIZER, Case, halves
from vistok.contracts.check import check, expect, expect_equal, expect_gradients, expect_shape
from vistok.core.draws import Draws
from vistok.core.schedules import Progress
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens

FAMILIES = (*IN_A_TOKENIZER, "loss", "discriminator", "generator", "data", "task", "optimizer")
_NETWORKS = ("space", "head", "encoder", "quantizer", "decoder")


@check(*FAMILIES, name="its config survives JSON and refuses unknown keys")
def config(case: Case) -> None:
    model = type(case.config)
    again = validate(model, json.loads(json.dumps(case.tree())))
    expect(again == case.config, "the config read back from JSON differs; expected plain fields")
    try:
        validate(model, case.tree() | {"no_such_key": 1})
    except ConfigError:
        return
    expect(False, f"{model.__name__} takes an unknown key; expected a subclass of vistok's Config")


@check(*IN_A_TOKENIZER, name="a tokenizer is built with it, on the meta device too")
def built(case: Case) -> None:
    assert case.family in families()
    tokenizer = case.tokenizer()
    with torch.device("meta"):
        hollow = Tokenizer(tokenizer.config)
    real = [name for name, tensor in hollow.named_parameters() if not tensor.is_meta]
    expect(not real, f"{real[:1]} is made on a device of its own; expected torch's default device")


@check(*IN_A_TOKENIZER, name="images come back: shape, type, finite numbers")
def forward(case: Case) -> None:
    tokenizer = case.tokenizer().train()
    batch = case.images(tokenizer)
    for draws in (None, tokenizer.draw(batch.index, 0, Progress(0, 10))):
        found = tokenizer(batch, draws).pixels
        expect_shape("the reconstruction", found, tuple(batch.pixels.shape), torch.float32)
        expect(bool(found.isfinite().all()), "the reconstruction is not finite; expected numbers")


@check(*IN_A_TOKENIZER, name="gradients reach every parameter")
def gradients(case: Case) -> None:
    tokenizer = case.tokenizer().train()
    batch = case.images(tokenizer)
    for sampled in (False, True):
        tokenizer.zero_grad()
        draws = tokenizer.draw(batch.index, 0, Progress(0, 10)) if sampled else None
        _loss(tokenizer(batch, draws)).backward()
        expect_gradients(tokenizer, "the reconstruction and the quantizer's losses")


def _loss(result) -> torch.Tensor:
    error = (result.pixels - result.target).square().mean()
    # Features that only a loss reads are made by parameters of their own (branches).
    features = sum(rows.float().square().mean() for rows in result.decoded.features.values())
    return error + features + sum(result.quantized.losses.values())


@check(*_NETWORKS, name="bf16 autocast: finite, near fp32, quantizers in fp32")
def autocast(case: Case) -> None:
    tokenizer = case.tokenizer().train()
    batch = case.images(tokenizer)
    keep = None
    if tokenizer.spec().prefix != "none":
        keep = torch.arange(4) % tokenizer.spec().max_prefix + 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = tokenizer(batch, Draws(keep=keep))
        loss = _loss(result)
    expect(bool(result.pixels.isfinite().all()), "the reconstruction is not finite under bf16")
    values = result.quantized.values
    expect(values.dtype == torch.float32, f"quantized values are {values.dtype}; expected fp32")
    loss.backward()
    for name, parameter in tokenizer.named_parameters():
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        expect(finite, f"{name} has a gradient that is not finite under bf16")
    exact = case.tokenizer().latents(batch.pixels).values
    expect_equal("latents under bf16", result.latents.values.float(), exact, "fp32", 0.15)


@check(*IN_A_TOKENIZER, name="a sample's tokens and image do not depend on its batch")
def batches(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    batch = case.images(tokenizer)
    whole = tokenizer.encode(batch.pixels)
    again = tokenizer.encode(batch.pixels)
    parts = [tokenizer.encode(part.pixels) for part in halves(batch)]
    if whole.indices is None:
        found, once_more = torch.cat([part.values for part in parts]), again.values
        expect_equal("tokens of a second call", once_more, whole.values, "those of the first")
        expect_equal("tokens of two batches", found, whole.values, "those of one", 1e-4)
    else:
        expect_equal("tokens of a second call", again.indices, whole.indices, "those of the first")
        found = torch.cat([part.indices for part in parts])
        expect_equal("tokens of two batches", found, whole.indices, "those of one")
    decoded = tokenizer.decode(whole)
    expect_equal("the image of a second call", tokenizer.decode(whole), decoded, "the first")
    rows = [slice(0, 1), slice(1, 4)]
    pieces = [tokenizer.decode(whole.select(r), index=batch.index[r]) for r in rows]
    expect_equal("images of two batches", torch.cat(pieces), decoded, "those of one", 1e-4)


@check(*IN_A_TOKENIZER, name="tokens survive bytes, whole and as every prefix")
def codec(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    tokens, spec = tokenizer.encode(case.images(tokenizer).pixels), tokenizer.spec()
    if tokens.indices is None:  # continuous: nothing to pack
        return
    for cut in (tokens, *(tokens.prefix(length) for length in spec.eval_lengths)):
        back = Tokens.from_bytes(cut.to_bytes(), spec)
        expect_equal("tokens read back from bytes", back.indices, cut.indices, "those written")
        decoded = tokenizer.decode(cut)
        expect_equal("the image of tokens from bytes", tokenizer.decode(back), decoded, "before")


@check(*IN_A_TOKENIZER, name="deep copies, save_pretrained and from_pretrained give the same model")
def saved(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    pixels = case.images(tokenizer).pixels
    tokens = tokenizer.encode(pixels)
    image = tokenizer.decode(tokens)
    twin = copy.deepcopy(tokenizer)
    expect_equal("the image of a deep copy", twin.decode(tokens), image, "that of the original")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        again = Tokenizer.from_pretrained(folder)
    expect(again.config == tokenizer.config, "the config read back differs; expected the same")
    own, theirs = tokenizer.state_dict(), again.state_dict()
    expect(set(own) == set(theirs), "the names of the saved tensors differ; expected the same")
    for name, tensor in own.items():
        expect_equal(f"the saved {name}", theirs[name], tensor, "what was saved")
    expect_equal("the image of the saved model", again.decode(tokens), image, "before")


@check("regularizer", name="draws are keyed by seed, step and sample, whatever the batch")
def keyed(case: Case) -> None:
    tokenizer = case.tokenizer()
    index = torch.arange(32)
    draw = lambda seed, rows=index: vars(tokenizer.draw(rows, seed, Progress(5, 10)))
    sampled = {name for name, value in draw(0).items() if isinstance(value, torch.Tensor)}
    fills = set(case.entry.part.fills)
    expect(sampled == fills, f"draw fills {sorted(sampled)}; its `fills` say {sorted(fills)}")
    for name in sampled:
        first = draw(0)[name]
        expect(len(first) == 32, f"{name} has {len(first)} rows for 32 samples; expected one each")
        expect_equal(f"{name} drawn again", draw(0)[name], first, "the first: use `rng`, not torch")
        if not hasattr(case.config, "choose"):  # else a share of the global batch is drawn
            part = draw(0, index[20:])[name]
            expect_equal(f"{name} of samples 20 to 31", part, first[20:], "their part of all 32")
        seeds = any(not torch.equal(first, draw(seed)[name]) for seed in range(1, 9))
        expect(seeds, f"{name} is the same for nine seeds; expected draws that depend on `rng`")


@check(*_NETWORKS, "loss", "discriminator", name="its own frozen networks are not saved")
def frozen(case: Case) -> None:
    holder = case.tokenizer() if case.family in IN_A_TOKENIZER else case.part()
    from vistok.frozen.network import Frozen

    inside = {name for name, one in holder.named_modules() if isinstance(one, Frozen)}
    kept = [key for key in holder.state_dict() if any(key.startswith(f"{n}.") for n in inside)]
    expect(not kept, f"{kept[:1]} of a frozen network is in the state dict; expected none of it")


def module_of(case: Case) -> str:
    """Where a part is defined, for the heading of a report."""
    import inspect

    try:
        file, line = inspect.getsourcefile(case.entry.part), inspect.getsourcelines(case.entry.part)
    except (OSError, TypeError):
        return case.entry.part.__module__
    return f"{own_code.shown(file)}, line {line[1]}"
