"""The discriminator that sees an image beside the noisy one it was made from (epsilon-VAE)."""

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.draws import PartDraws
from vistok.core.records import Batch, Decoded, Noisy, Reconstruction
from vistok.core.schedules import Progress
from vistok.decoders.flow_unet import FlowUNetConfig
from vistok.losses.adversarial import AdversarialConfig
from vistok.losses.discriminators import PatchGANConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig

BATCH, NOW = Batch(index=torch.arange(2)), Progress(0, 10)
PAIRS = PatchGANConfig(width=8, layers=1, in_channels=6)


def tokenizer(**changes) -> Tokenizer:
    cnn = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "norm_groups": 4}
    tree = {
        "image_size": 32,
        "encoder": {"kind": "cnn", "conv": cnn},
        "quantizer": {"kind": "kl", "dim": 2},
        "decoder": FlowUNetConfig.tiny().model_dump(),
    }
    return Tokenizer(validate(TokenizerConfig, {**tree, **changes}))


def loss(**config):
    one = build(AdversarialConfig(discriminator=PAIRS, noisy=True, start=0, **config))
    one.bind(tokenizer())
    return one


def passed(noisy=True) -> Reconstruction:
    torch.manual_seed(0)
    fake, real, x = torch.rand(3, 2, 3, 32, 32)
    noise = Noisy(x * 2 - 1, torch.tensor([0.3, 0.6])) if noisy else None
    return Reconstruction(fake, real, Decoded(fake, fake), None, None, noisy=noise)


def test_both_images_stand_beside_the_same_noisy_one():
    one, seen = loss(), []
    one.discriminator.discriminator.register_forward_hook(
        lambda _, inputs, __: seen.append(*inputs)
    )
    made = passed()
    one(made, BATCH, NOW)
    real, fake = one.hand_on(made, BATCH, NOW)
    one.step(one.discriminator, (real, fake), BATCH, PartDraws(), NOW)
    noisy = (made.noisy.x + 1) / 2  # as pixels
    torch.testing.assert_close(seen[0], torch.cat([made.pixels, noisy], 1))
    pairs = [torch.cat([image, noisy], 1) for image in (made.target, made.pixels)]
    torch.testing.assert_close(seen[1], torch.cat(pairs))


def test_it_is_left_out_where_the_decoder_samples():
    assert loss()(passed(noisy=False), BATCH, NOW) == {}


def test_what_it_refuses():
    with pytest.raises(ValueError, match="of 3 channels; expected 6"):
        AdversarialConfig(noisy=True)
    with pytest.raises(ValueError, match="of 6 channels; expected 3"):
        AdversarialConfig(discriminator=PAIRS)
    with pytest.raises(ValueError, match="leave them out"):
        AdversarialConfig(discriminator=PAIRS, noisy=True, blur_steps=3)
    one = build(AdversarialConfig(discriminator=PAIRS, noisy=True))
    conv = {"channels": 8, "channel_mult": [1, 2], "norm_groups": 4}
    plain = {"decoder": {"kind": "cnn", "conv": conv}}
    with pytest.raises(ConfigError, match="expected a flow decoder"):
        one.bind(tokenizer(**plain))
