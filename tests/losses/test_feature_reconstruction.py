"""Feature reconstruction by hand: targets without a gradient, both distances, its last step."""

import pytest
import torch

from vistok.config import validate
from vistok.config.registry import build
from vistok.core.records import Batch, Decoded, Latents, Quantized, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.feature_reconstruction import FeatureReconstructionConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig


def pass_through(target, source) -> Reconstruction:
    image = torch.zeros(1, 3, 4, 4)
    latents = Latents(target, ((2,),), {"z": target})
    return Reconstruction(
        image, image, Decoded(image, image, {"z": source}),
        Quantized(source, source, None, None), latents,
    )  # fmt: skip


@pytest.mark.parametrize("taps", [{}, {"encoder": None, "decoder": None}])
@pytest.mark.parametrize(("how", "value"), [("mse", 1.25), ("cosine", 0.5)])
def test_by_hand(how, value, taps):
    loss = build(FeatureReconstructionConfig(how=how, weight=2.0, stop=10, **taps))
    target = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]], requires_grad=True)
    # Squares 1 and 4 over four numbers; cosines 1 and, of a row of zeros, 0.
    source = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    batch = Batch(torch.arange(1))
    terms = loss(pass_through(target, source), batch, Progress(9, 20))
    assert terms["feature_reconstruction"].item() == pytest.approx(value)
    assert loss.weights(Progress(9, 20)) == {"feature_reconstruction": 2.0}
    terms["feature_reconstruction"].backward()
    assert target.grad is None and source.grad.any()
    assert loss(pass_through(target, source), batch, Progress(10, 20)) == {}


def test_widths_must_agree(fails):
    conv = {"channels": 8, "channel_mult": [1, 1], "blocks": 1, "mid_blocks": 1, "norm_groups": 4}
    part = {"kind": "cnn", "conv": conv, "z_channels": 8}
    tree = {
        "image_size": 8,
        "encoder": part,
        "quantizer": {"kind": "vq", "codebook_size": 8, "dim": 3},
        "decoder": part,
    }
    tokenizer = Tokenizer(validate(TokenizerConfig, tree))
    build(FeatureReconstructionConfig(encoder=None, decoder=None)).bind(tokenizer)
    with fails(ValueError, "8 channels of the encoder .z. with 3 of the decoder .values."):
        build(FeatureReconstructionConfig(decoder=None)).bind(tokenizer)
    with fails(ValueError, "the decoder has no tap 'z'"):
        build(FeatureReconstructionConfig()).bind(tokenizer)
