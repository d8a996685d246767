"""VidTok's latents: 1 + 4k frames, causal, its file by name or with the model."""

import pytest
import torch
from safetensors.torch import save_file

from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.frozen.files import BadWeights, MissingWeights
from vistok.frozen.vidtok import VidTokConfig
from vistok.spaces.clip_vae import ClipVAEConfig

NETWORK = VidTokConfig(latent_channels=2, channels=4, channel_mult=(1, 1, 1), blocks=1)


def woken(space):
    torch.manual_seed(0)
    for parameter in space.parameters():
        parameter.data.normal_(std=0.3)
    return space


@torch.no_grad()
@pytest.mark.parametrize("norm", ["layernorm", "groupnorm"])
def test_a_latent_frame_sees_no_later_frame(norm):
    network = NETWORK.model_copy(update={"norm": norm, "norm_groups": 2})
    space = woken(build(ClipVAEConfig(weights="own", network=network), Shape(3, (9, 8, 8))))
    assert space.shape == Shape(2, (3, 2, 2))
    clips = torch.rand(2, 3, 9, 8, 8)
    latents = space(clips)
    for frames, steps in ((1, 1), (5, 2)):
        torch.testing.assert_close(space(clips[:, :, :frames]), latents[:, :, :steps])
    back = space.inverse(latents)
    assert back.shape == clips.shape
    torch.testing.assert_close(space.inverse(latents[:, :, :2]), back[:, :, :5])
    image = build(ClipVAEConfig(weights="own", network=network), Shape(3, (8, 8)))
    image.load_state_dict(space.state_dict())
    torch.testing.assert_close(image(clips[:, :, 0]), latents[:, :, 0])
    torch.testing.assert_close(image.inverse(latents[:, :, 0]), back[:, :, 0])


@torch.no_grad()
def test_noise_of_a_shorter_clip_is_that_of_its_first_frames():
    config = ClipVAEConfig(weights="own", network=NETWORK, sample_posterior=True)
    space, clips = woken(build(config, Shape(3, (9, 8, 8)))), torch.rand(2, 3, 9, 8, 8)
    draws = space.draw(torch.arange(2), Rng(0, "input_space"), Progress(0, 1))
    whole = space(clips, draws)
    assert not torch.equal(whole, space(clips))
    torch.testing.assert_close(space(clips[:, :, :1], draws), whole[:, :, :1])


def test_other_counts_of_frames_are_refused(fails):
    config = ClipVAEConfig(weights="own", network=NETWORK)
    with fails(InputError, "a clip of 8 frames", r"1 \+ k x 4; 5, 9, 13"):
        build(config, Shape(3, (8, 8, 8)))
    with fails(InputError, "a clip of 4 frames"):
        build(config, Shape(3, (9, 8, 8)))(torch.rand(1, 3, 4, 8, 8))


@torch.no_grad()
def test_a_file_of_the_release(tmp_path, fails, monkeypatch):
    monkeypatch.delenv("VISTOK_WEIGHTS", raising=False)
    shape, file = Shape(3, (5, 8, 8)), tmp_path / "vidtok.safetensors"
    own = woken(build(ClipVAEConfig(weights="own", network=NETWORK), shape))
    state = dict(own.network.network.state_dict())
    save_file({**state, "loss.logvar": torch.zeros(1)}, file)
    borrowed = build(ClipVAEConfig(weights=str(file), network=NETWORK), shape)
    assert not borrowed.state_dict()
    clips = torch.rand(1, 3, 5, 8, 8)
    assert torch.equal(borrowed(clips), own(clips))
    with fails(BadWeights, "has shape|lacks|unknown"):
        build(ClipVAEConfig(weights=str(file)), shape)
    with fails(MissingWeights, "VidTok", "VISTOK_WEIGHTS"):
        build(ClipVAEConfig(weights=str(tmp_path / "none")), shape)
