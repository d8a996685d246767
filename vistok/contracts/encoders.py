"""Checks of encoders and spaces."""

from __future__ import annotations

import torch

from vistok.contracts.case import Case
from vistok.contracts.check import check, expect, expect_equal, expect_shape
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import cells


@check("encoder", name="latents [B, N, D] lie on its grids")
def latents(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    encoder, width = tokenizer.encoder, tokenizer.quantizer.latent_dim
    found = tokenizer.latents(case.images(tokenizer).pixels)
    count = sum(map(cells, encoder.grids))
    expect_shape("latents [B, N, D]", found.values, (4, count, width))
    same = tuple(map(tuple, found.grids)) == tuple(map(tuple, encoder.grids))
    expect(same, f"latents lie on {found.grids}; expected the encoder's grids {encoder.grids}")
    stored = encoder.stored
    expect(stored is None or stored <= count, f"stored={stored} of {count} latents; expected fewer")


@check("space", name="pixels into the space and back: shapes, and draws that are keyed")
def spaces(case: Case) -> None:
    tokenizer = case.tokenizer().eval()
    space, batch = tokenizer.output_space, case.images(tokenizer)
    if tokenizer.input_space.reads_only:
        inside = tokenizer.input_space(batch.pixels)
        own = tokenizer.input_space.shape
        return expect_shape("pixels in the space", inside, (4, own.channels, *own.sides))
    try:
        inside = space(batch.pixels)
    except InputError:  # an output only
        inside = torch.randn(4, space.shape.channels, *space.shape.sides)
    expect_shape("pixels in the space", inside, (4, space.shape.channels, *space.shape.sides))
    back = space.inverse(inside)
    expect_shape("pixels out of the space", back, tuple(batch.pixels.shape))
    expect(bool(back.isfinite().all()), "the way back is not finite; expected numbers around 0..1")
    draw = lambda index: space.draw(index, Rng(0, "input_space"), Progress(0, 10))
    drawn = draw(batch.index)
    if drawn is not None and drawn.noise is not None:
        part = draw(torch.tensor([2, 3])).noise
        expect_equal("noise of samples 2 and 3", part, drawn.noise[2:], "their part of all four")
