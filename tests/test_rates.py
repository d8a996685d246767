"""Decoders with a table of positions make one number of frames, at the rate that is asked for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok.conditioning import ReadsText
from vistok.config import validate
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.rates import at_rate
from vistok.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture(scope="module")
def fixed():
    """tiny/vfrtok, whose encoder takes any number of frames and whose decoder makes 8."""
    tree = read_config(TINY["vfrtok"]).task.tokenizer.model_dump()
    tree["decoder"]["patches"]["positions"] = "learned"
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, tree)).eval()


@pytest.fixture(scope="module")
def slow(fixed):
    """Tokens of 1/3 s at 12 frames per second."""
    pixels = torch.rand(2, 3, 4, 32, 32)
    found = fixed.encode(pixels, condition=Condition(fps=torch.full((2,), 12.0)))
    return replace(found, fps=12.0), pixels


def test_the_target_says_the_rate(fixed, slow):
    tokens, pixels = slow
    fps = torch.full((2,), 24.0)
    batch = Batch(torch.arange(2), pixels, torch.rand(2, 3, 8, 32, 32), target_fps=fps)
    made = fixed(batch, condition=Condition(fps=torch.full((2,), 12.0))).decoded.estimate
    asked = fixed.decode(tokens, at_rate(fixed, tokens, 24.0))
    assert torch.allclose(fixed.output_space.inverse(made).clamp(0, 1), asked, atol=1e-5)
    other = fixed.decode(tokens, Condition(sides=(8, 32, 32), fps=torch.full((2,), 12.0)))
    assert not torch.allclose(asked, other, atol=1e-3)


def test_another_number_of_frames_is_refused(fixed, slow, fails):
    tokens, pixels = slow
    message = r"^sides=\(4, 32, 32\): this tokenizer decodes to \(8, 32, 32\) only"
    with fails(InputError, message):
        fixed.decode(tokens)
    with fails(InputError, message):
        fixed(Batch(torch.arange(2), pixels, pixels, fps=torch.full((2,), 12.0)))
    with fails(InputError, r"^fps=60: 0.333 s have 20 frames, and this tokenizer's decoder has"):
        at_rate(fixed, tokens, 60.0)


def test_texts_and_rates_reach_a_condition_together():
    class Reads(ReadsText):
        config = SimpleNamespace(text="a text encoder")
        encoder, decoder = SimpleNamespace(reads_fps=True), SimpleNamespace()

        def condition(self, texts, null=None):
            return Condition(text=torch.zeros(len(texts), 1, 1), null=null)

    batch = Batch(torch.arange(2), text=("a", "b"), fps=torch.tensor([8.0, 24.0]))
    found = Reads().condition_of(batch)
    assert found.text is not None and found.fps.tolist() == [8.0, 24.0]


def test_parts_whose_frames_are_not_those_of_pixels_take_one_number_of_them(fails):
    tree = read_config(TINY["vfrtok"]).task.tokenizer.model_dump() | {"frames": 9}
    tree["input_space"] = tree["output_space"] = {"kind": "haar", "patch": 4}
    for part in ("encoder", "decoder"):
        tree[part]["patches"] |= {"frames": 1, "size": 4}
    tokenizer = Tokenizer(validate(TokenizerConfig, tree)).eval()
    clip = torch.rand(1, 3, 9, 32, 32)
    assert tokenizer.decode(tokenizer.encode(clip)).shape == clip.shape
    assert tokenizer(Batch(torch.arange(1), clip)).pixels.shape == clip.shape
    with fails(InputError, r"\(1, 3, 8, 32, 32\); expected \[B, 3, 9, 32, 32\]"):
        tokenizer.encode(clip[:, :, :8])
