"""Clips of any frame rate in periods of one duration, decoded at another rate."""

from dataclasses import replace

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok import chunking, transcoding
from vistok.chunking import Chunking
from vistok.config import validate
from vistok.core.errors import InputError
from vistok.rates import frames_at, of_clips
from vistok.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture(scope="module")
def model():
    """A period of 1/3 s: 8 frames at 24 fps, patches of 2 frames."""
    torch.manual_seed(0)
    tree = read_config(TINY["vfrtok"]).task.tokenizer.model_dump()
    for part in ("encoder", "decoder"):
        tree[part]["rotary"]["anchor"] = 24.0
    return Tokenizer(validate(TokenizerConfig, tree)).eval()


def whole(model, frames, fps, pad=None, overlap=None):
    torch.manual_seed(1)
    clip = torch.rand(frames, 3, 32, 32)
    places = Chunking.of(model, frames, overlap, fps)
    timed = of_clips(model, None, fps)
    tokens = chunking.encode(model, clip, places, pad, condition=timed)
    return clip, replace(tokens, fps=fps), places


@pytest.mark.parametrize(
    ("frames", "fps", "window"), [(24, 24.0, 8), (60, 60.0, 20), (31, 30.0, 10), (12, 12.0, 4)]
)
def test_tokens_are_proportional_to_the_duration(model, frames, fps, window):
    clip, tokens, places = whole(model, frames, fps, "repeat")
    assert frames_at(model, fps) == places.window == window and places.overlap == 0
    assert len(tokens) == -(-frames // window) and tokens.size == (window, 32, 32)
    first = model.encode(clip[:window].transpose(0, 1)[None], condition=of_clips(model, None, fps))
    assert torch.equal(first.indices[0], tokens.indices[0])
    made = list(chunking.decode(model, tokens, places))
    assert len(made) == frames and made[0].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("frames", "fps", "to"), [(24, 24.0, 60.0), (60, 60.0, 24.0), (31, 30.0, 25.0), (48, 24, 7.3)]
)
def test_the_duration_stays(model, monkeypatch, frames, fps, to):
    _, tokens, places = whole(model, frames, fps, "reflect")
    made = list(transcoding.decode(model, tokens, places, to, batch=2))
    assert len(made) == round(frames * to / fps) and made[0].shape == (3, 32, 32)

    def clock(tokens, condition, *, index, **_):
        """Clips whose pixels are the time of their frame."""
        assert condition.sides[0] % 2 == 0 and condition.fps.shape == index.shape
        times = index[:, None] * places.step / fps + torch.arange(condition.sides[0]) / to
        return times[:, None, :, None, None].expand(-1, 3, -1, 2, 2)

    monkeypatch.setattr(model, "decode", clock)
    times = [f[0, 0, 0].item() for f in transcoding.decode(model, tokens, places, to, batch=2)]
    for n, time in enumerate(times):  # off by less than a frame where a window begins
        assert n / to - 1 / to < time <= n / to + 1e-5


def test_at_its_own_rate_transcoding_changes_nothing(model):
    _, tokens, places = whole(model, 24, 24.0)
    own = torch.stack(list(chunking.decode(model, tokens, places)))
    again = torch.stack(list(transcoding.decode(model, tokens, places, 24.0)))
    assert torch.allclose(own, again, atol=1e-6)


def test_windows_that_overlap_are_refused(model, fails):
    _, tokens, places = whole(model, 14, 24.0, overlap=2)
    with fails(InputError, r"^--fps 60: windows that share 2 frames decode at their own rate only"):
        next(transcoding.decode(model, tokens, places, 60.0))
    with fails(InputError, "^--fps 60: these tokens do not say at which rate"):
        next(transcoding.decode(model, replace(tokens, fps=None), places, 60.0))
