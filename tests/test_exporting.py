"""Exported programs give what eager mode gives: grids, 1D, scales and flexible lengths."""

from __future__ import annotations

import pytest
import torch

from vistok.config import UserError
from vistok.contracts.case import around, images, small, tiny
from vistok.exporting import Decode, Encode

PIXELS = images(2).pixels
MADE = {
    "1d": lambda: tiny(quantizer=small("quantizer", "vq")),
    "grid": lambda: tiny(encoder=small("encoder", "cnn"), decoder=small("decoder", "cnn")),
    "scales": lambda: tiny(**around("quantizer", "multi_scale")),
}


@pytest.mark.parametrize("name", MADE)
def test_both_directions(name):
    model = MADE[name]().eval()
    tokens = model.encode(PIXELS)
    encode = torch.export.export(Encode(model), (PIXELS,)).module()
    other = PIXELS.flip(0)
    codes = encode(other)
    expected = model.encode(other)
    held = expected.values if expected.indices is None else expected.indices.long()
    assert torch.equal(codes, held)
    for length in [None, 2] if name == "1d" else [None]:
        decode = torch.export.export(Decode(model, length), (codes,)).module()
        short = tokens if length is None else tokens.prefix(length)
        given = tokens.values if tokens.indices is None else tokens.indices.long()
        assert torch.allclose(decode(given), model.decode(short), atol=1e-6)


def test_what_cannot_be_exported(fails):
    with fails(UserError, "decoder.kind=flow_vit samples: it cannot be exported"):
        Decode(tiny(**around("decoder", "flow_vit")).eval())
    with fails(UserError, "in training mode; call tokenizer.eval"):
        Encode(MADE["1d"]().train())
    with fails(UserError, r"length=9: expected 1\.\.4 tokens"):
        Decode(MADE["1d"]().eval(), 9)
