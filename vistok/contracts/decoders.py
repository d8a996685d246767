"""Checks of decoders and heads."""

from __future__ import annotations

import torch
from torch import nn

from vistok.config.contract import lacks
from vistok.contracts.case import Case
from vistok.contracts.check import Left, check, expect, expect_equal, expect_shape


@check("decoder", name="its output lies in the output space, its estimate too")
def output(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    shape = tokenizer.output_space.shape
    found = tokenizer(case.images(tokenizer)).decoded
    expect_shape("the estimate", found.estimate, (4, shape.channels, *shape.sides))


@check("decoder", name="values that are hidden do not matter")
def hidden(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    decoder, count = tokenizer.decoder, tokenizer.layout.count
    if decoder.prefix == "none" or not tokenizer._masked:
        return
    tokens = tokenizer.encode(case.images(tokenizer).pixels)
    values = tokenizer.pad(tokenizer.values(tokens))
    present = (torch.arange(count) < count // 2 + 1).expand(4, -1)
    other = torch.where(present[..., None], values, torch.full_like(values, 3.0))
    with torch.no_grad():
        run = lambda given: _decoded(tokenizer, given, present)
        expect_equal("with other hidden values it", run(other), run(values), "before", 1e-5)


def _decoded(tokenizer, values, present):
    if tokenizer.sampling is None:
        return tokenizer.reconstruct(values, present).estimate
    noise = tokenizer.decoder.noise(torch.arange(4), _rng())
    return tokenizer.decoder.sample(values, present, None, noise, tokenizer.sampling)


def _rng():
    from vistok.core.rng import Rng

    return Rng(0, "decoder")


@check("decoder", name="every length that it says it serves decodes")
def lengths(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    spec, pixels = tokenizer.spec(), case.images(tokenizer).pixels
    if not spec.vocab:
        return
    for length in spec.eval_lengths:
        image = tokenizer.decode(tokenizer.encode(pixels, length))
        expect_shape(f"the image of length {length}", image, tuple(pixels.shape))


@check("decoder", "head", name="last_layer, for losses that are balanced by gradients")
def last_layer(case: Case) -> None:
    decoder = case.tokenizer().decoder
    if lacks(decoder, "last_layer"):
        raise Left("no last_layer: the adversarial loss with adaptive weights cannot run")
    layer = decoder.last_layer
    expect(isinstance(layer, nn.Parameter), f"last_layer is {type(layer)}; expected a Parameter")
    own = any(layer is parameter for parameter in decoder.parameters())
    expect(own, "last_layer is no parameter of the decoder; expected its last weight")
