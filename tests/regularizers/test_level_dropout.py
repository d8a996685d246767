"""Level dropout: how many images lose levels, how many levels they keep, who may ask for it."""

import pytest
import torch

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.level_dropout import LevelDropoutConfig
from vistok.tokens import TokenSpec

SCALES = TokenSpec(blocks=((1, 1), (1, 1), (2, 2), (3, 3), (4, 4)), vocab=(8, 8), prefix="block")


def levels(batch: int, seed: int = 0, **options) -> torch.Tensor:
    part = build(LevelDropoutConfig(**options))
    draws = part.draw(SCALES, torch.arange(batch), Rng(seed, "l"), Progress(0, 1))
    assert draws.levels.shape == (batch, 5) and draws.levels.dtype == torch.bool
    return draws.levels


def test_kept_levels_are_a_prefix_uniform_from_the_start():
    drawn = levels(3000, proportion=1.0, start=2)
    assert torch.equal(drawn, drawn.int().cummin(1).values.bool())
    counts = torch.bincount(drawn.sum(1), minlength=6)
    assert counts[:2].sum() == 0  # each of 2, 3, 4, 5 in 750 of 3000 draws, +- 24
    assert counts[2:].min() > 650 and counts[2:].max() < 850


@pytest.mark.parametrize(("batch", "proportion", "images"), [(10, 0.25, 2), (8, 0.1, 0), (6, 1, 6)])
@pytest.mark.parametrize("choose", ["global", "first_local"])
def test_at_most_the_floor_of_the_share_loses_levels(batch, proportion, images, choose):
    hit = torch.zeros(batch, dtype=torch.bool)
    for seed in range(40):  # one draw of two keeps everything
        drawn = levels(batch, seed, proportion=proportion, start=4, choose=choose)
        assert int((~drawn.all(1)).sum()) <= images
        hit |= ~drawn.all(1)
    if choose == "first_local":
        assert hit.tolist() == [True] * images + [False] * (batch - images)
    elif 0 < images < batch:
        assert int(hit.sum()) > images  # not always the same ones


@pytest.mark.parametrize("count", [1, 3])
def test_any_level_behind_the_first_may_be_lost(count):
    drawn = levels(2000, which="any", count=count, start=1, proportion=1.0)
    assert drawn[:, 0].all() and torch.equal(drawn.sum(1), torch.full((2000,), 5 - count))
    shares = (~drawn[:, 1:]).float().mean(0)
    assert (shares - count / 4).abs().max() < 0.05


def test_a_batch_loses_the_same_levels_or_none():
    passes = [
        levels(6, seed, which="any", start=1, proportion=0.3, choose="batch") for seed in range(200)
    ]
    assert all(bool((one == one[0]).all()) for one in passes)
    lost = sum(not bool(one.all()) for one in passes)
    assert 40 < lost < 80  # 60, +- 6.5


DROPOUT = {"kind": "level_dropout", "proportion": 1.0, "start": 1}


def test_branches_of_an_image_lose_the_same_levels(make_tokenizer):
    tokenizer = make_tokenizer("product_scales", "refuse", [DROPOUT]).train()
    draws = tokenizer.draw(torch.arange(32), 0, Progress(0, 1))
    latents = tokenizer.latents(torch.rand(32, 3, 8, 8))
    quantized = tokenizer.quantize(latents, draws)
    indices = tokenizer.quantize(latents).indices
    assert torch.equal(quantized.indices, indices)
    lost = ~draws.levels.all(1)
    assert 8 < int(lost.sum()) < 24
    coarse = tokenizer.quantizer.partial(indices, 1, (2, 2))
    assert torch.equal(quantized.values[lost], coarse[lost])
    assert torch.equal(quantized.values[~lost], quantized.clean[~lost])


def test_only_quantizers_with_levels_drop_them(make_tokenizer, fails):
    with fails(ConfigError, "'level_dropout': it drops levels", "expected a multi_scale"):
        make_tokenizer(regularizers=[DROPOUT])
    with fails(ConfigError, "'level_dropout': count=2", "1 to lose"):
        make_tokenizer("product_scales", "refuse", [DROPOUT | {"which": "any", "count": 2}])
    with fails(ConfigError, "'level_dropout': start=3", "2 levels", "expected 1..2"):
        make_tokenizer("product_scales", "refuse", [DROPOUT | {"start": 3}])
