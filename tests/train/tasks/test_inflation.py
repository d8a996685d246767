"""A tokenizer of clips that starts as one of images: equal on a single frame, in its parts and as a
whole."""

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.tokenizer import Tokenizer
from vistok.train.tasks.inflation import inflated


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A tiny image tokenizer without a zero in it, saved."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(read_config(TINY["open_magvit2"]).task.tokenizer).eval()
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)
    folder = tmp_path_factory.mktemp("image")
    tokenizer.save_pretrained(folder)
    return tokenizer, str(folder)


def task_from(**init):
    config = read_config(TINY["open_magvit2_video"]).task
    parts = {"parts": ["encoder", "decoder"]} | init
    tree = config.model_dump(exclude={"init", "tokenizer", "losses"})
    own = type(config).model_validate(
        tree | {"tokenizer": config.tokenizer, "losses": config.losses, "init": parts}
    )
    return build(own, None)


def test_one_frame_passes_as_an_image_did(image):
    tokenizer, path = image
    task = task_from(path=path, inflate=True)
    assert task.started == [f"encoder, decoder from {path}, inflated"]
    video = task.tokenizer.eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, given = video.latents(pixels[:, :, None]), tokenizer.latents(pixels)
        torch.testing.assert_close(mine.values, given.values, atol=1e-5, rtol=1e-5)
        tokens, wanted = video.encode(pixels[:, :, None]), tokenizer.encode(pixels)
        assert torch.equal(tokens.indices, wanted.indices) and tokens.indices.unique().numel() > 9
        back, wanted = video.decode(tokens), tokenizer.decode(wanted)
        torch.testing.assert_close(back[:, :, 0], wanted, atol=1e-5, rtol=1e-5)
        # Equal frames, of which the convolutions read each alone, have equal maps.
        still = video.encoder.conv_in(pixels[:, :, None].repeat(1, 1, 3, 1, 1))
        assert torch.equal(still[:, :, 0], still[:, :, 2]) and still.any()


def test_kernels_lie_in_the_last_frame_and_new_frames_are_copies(image):
    tokenizer, path = image
    given = {k: v for k, v in tokenizer.decoder.state_dict().items() if "levels.2.way" in k}
    video = task_from(path=path, inflate=True).tokenizer.decoder
    own = {k: v for k, v in video.state_dict().items() if k in given}
    kernel, bias = own["levels.2.way.conv.weight"], own["levels.2.way.conv.bias"]
    assert not kernel[:, :, :-1].any()
    for half in (kernel[:, :, -1].chunk(2), bias.chunk(2)):  # time is halved on this way
        assert torch.equal(half[0], half[1])
    assert torch.equal(kernel[: len(kernel) // 2, :, -1], given["levels.2.way.conv.weight"])
    both = inflated(given, own)
    assert all(torch.equal(both[key], own[key]) for key in own)


def test_what_does_not_fit_is_named(image):
    _, path = image
    with pytest.raises(ConfigError, match=r"conv_in\.weight has shape .*, expected") as error:
        task_from(path=path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"init\.inflate is for the path of an image tokenizer"):
        task_from(network="dinov2-b", inflate=True)
