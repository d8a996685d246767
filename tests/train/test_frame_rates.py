"""Clips read at one frame rate and rebuilt at another."""

from dataclasses import replace

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok.config import ConfigError, validate
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.data.base import Facts
from vistok.rates import at_rate, transcoded
from vistok.tokenizer import Tokenizer
from vistok.train.jobs.cache import Cache, CacheConfig
from vistok.train.tasks.frame_rates import FrameRatesConfig, between, draw, low_rates
from vistok.train.tasks.tokenizer import TokenizerTask, TokenizerTaskConfig


def test_transcoding_takes_whole_patches_and_says_the_real_rate():
    clip = torch.arange(20.0).view(1, 1, 20, 1, 1)
    slow, fps = transcoded(clip, 30.0, 18.0, 4)
    assert slow.flatten().tolist() == [int(i * 30 / 18) for i in range(12)] and fps == 18.0
    short, fps = transcoded(clip[:, :, :16], 30.0, 24.0, 4)
    assert short.shape[2] == 12 and fps == 22.5
    assert low_rates(FrameRatesConfig(), 20, 30.0, 4) == [12.0, 18.0, 24.0, 30.0]


def test_a_step_has_one_pair_of_rates():
    index, pixels = torch.arange(3), torch.rand(3, 3, 8, 4, 4)
    batch, seen = Batch(index, pixels, fps=torch.full((3,), 24.0)), set()
    for step in range(20):
        drawn = draw(index, Rng(0, "frame_rates", step))
        again = draw(torch.tensor([7]), Rng(0, "frame_rates", step))  # of another process
        uniform = drawn.part("frame_rates").uniform
        assert torch.equal(uniform[0], again.part("frame_rates").uniform[0])
        one = between(FrameRatesConfig(), batch, drawn, 2)
        goal = one.pixels if one.target is None else one.target
        assert one.pixels.shape[2] == 8 or goal.shape[2] == 8
        seen.add((one.pixels.shape[2], goal.shape[2]))
    assert {(8, 4), (4, 8)} <= seen


def test_tokens_decode_at_another_rate():
    tokenizer = Tokenizer(read_config(TINY["vfrtok"]).task.tokenizer).eval()
    batch = Batch(torch.arange(2), torch.rand(2, 3, 4, 32, 32), fps=torch.full((2,), 12.0))
    tokens = tokenizer.encode(batch.pixels, condition=tokenizer.condition_of(batch))
    assert tokens.size == (4, 32, 32) and tokenizer.decode(tokens).shape == batch.pixels.shape
    timed = replace(tokens, fps=12.0)
    fast = tokenizer.decode(timed, at_rate(tokenizer, timed, 24.0))
    assert fast.shape == (2, 3, 8, 32, 32)


def test_a_cache_encodes_clips_at_their_rate():
    tokenizer = Tokenizer(read_config(TINY["vfrtok"]).task.tokenizer).eval()
    batch = Batch(torch.arange(2), torch.rand(2, 3, 8, 32, 32), fps=torch.full((2,), 30.0))
    cached = Cache(CacheConfig(tokenizer="runs/x"), None)._encode(tokenizer, batch)[0].indices
    seen = tokenizer.encode(batch.pixels, condition=tokenizer.condition_of(batch)).indices
    assert torch.equal(cached, seen)
    assert not torch.equal(cached, tokenizer.encode(batch.pixels).indices)  # at the anchor's 8


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_of_a_fixed_number_of_frames_is_refused(fails, part):
    tree = read_config(TINY["vfrtok"]).task.model_dump()
    tree["tokenizer"][part]["patches"]["positions"] = "learned"
    config = validate(TokenizerTaskConfig, tree)
    with fails(ConfigError, f"^task.frame_rates: the {part} takes clips of one number of frames"):
        TokenizerTask(config, None)


def test_steps_of_one_data_set_read_and_rebuild_one_rate():
    config = FrameRatesConfig(lowest=6, symmetric=0.999, symmetric_fps=12, symmetric_of=[30])
    task = TokenizerTask(read_config(TINY["vfrtok"]).task.model_copy(), None)
    for fps, frames, alike in ((30.0, 10, True), (24.0, 8, False)):
        batch = Batch(torch.arange(2), torch.rand(2, 3, frames, 32, 32), fps=torch.full((2,), fps))
        drawn = draw(batch.index, Rng(0, "frame_rates", 1))
        one = between(config, batch, drawn, 2)
        assert (one.target is None) == alike
        made = task.tokenizer(one, condition=task.tokenizer.condition_of(one))
        goal = one.pixels if one.target is None else one.target
        assert made.pixels.shape == made.target.shape == goal.shape
        assert one.pixels.shape[2] < frames or goal.shape[2] < frames


def test_data_of_several_rates_train_in_one_run(fails):
    config = read_config(TINY["vfrtok"]).task
    sets = [Facts(), Facts()]
    for one, frames in zip(sets, (8, 20), strict=True):
        one.size, one.frames = (32, 32), frames
    data = Facts()
    data.sets = sets
    assert TokenizerTask(config, data).tokenizer.shape.frames == 8
    sets[1].frames = 21
    with fails(ConfigError, "gives clips of 21 frames of 32x32 pixels; this tokenizer takes"):
        TokenizerTask(config, data)
