"""Continuous tokens by flow: cells of every shape, what a cell sees, caches, solvers, scaling."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.generators import held, lively, tokens_of
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, warmup_cosine
from vistok.generators.cells import CellsConfig, cells_of
from vistok.generators.flow_ar import FlowAR, FlowARConfig
from vistok.generators.latent_scale import measured
from vistok.layers.flow.solvers import solve, solve_stochastic, times, times_to_last
from vistok.layers.modulation import Modulation
from vistok.tokens import Tokens, TokenSpec

GRID = TokenSpec(blocks=((4, 4),), vocab=(), dim=3)
LABEL, INDEX = Condition(label=torch.tensor([0, 1, 1])), torch.arange(3)
SHAPES = {
    "single tokens": (GRID, {"size": 1}),
    "cells": (GRID, {"size": 2}),
    "rows": (GRID, {"size": [1, 4]}),
    "uneven": (GRID, {"size": 3, "order": "snake"}),
    "subsamples": (GRID, {"size": 2, "group": "strided"}),
    "whole": (GRID, {"size": None}),
    "sequence": (TokenSpec(blocks=((6,),), vocab=(), dim=3, prefix="token"), {"size": 2}),
    "frames": (TokenSpec(blocks=((2, 2),) * 3, vocab=(), dim=3, prefix="block"), {"size": None}),
    "scales": (TokenSpec(blocks=((1, 1), (2, 2)), vocab=(), dim=3, prefix="block"),
               {"size": None}),
    "clip": (TokenSpec(blocks=((2, 2, 2),), vocab=(), dim=3), {"size": [1, 2, 2]}),
}  # fmt: skip


def made(spec: TokenSpec = GRID, **changes) -> FlowAR:
    torch.manual_seed(0)
    tree = {
        "transformer": {"width": 24, "depth": 1, "heads": 2, "norm_affine": False},
        "second": {"depth": 1, "heads": 3},
        "cells": {"size": 2},
        "time": {"channels": 8},
        "condition": {"classes": 2},
        "sampling": {"steps": 3},
    }
    config = validate(FlowARConfig, {**tree, **changes})
    return lively(build(config, spec)).eval()


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_cells_hold_every_position_once(name):
    spec, cells = SHAPES[name]
    found = cells_of(CellsConfig(**cells), spec)
    assert sorted(place for cell in found for place in cell) == list(range(spec.length))


def test_cells_by_hand():
    find = lambda **given: cells_of(CellsConfig(**given), GRID)
    assert find(size=2)[1] == (2, 3, 6, 7) and len(find(size=2)) == 4
    assert find(size=2, group="strided")[1] == (1, 3, 9, 11)
    assert find(size=[1, 4])[2] == (8, 9, 10, 11)
    assert find(size=2, order="columns")[1] == (8, 9, 12, 13)
    assert [cell[0] for cell in find(order="snake")] == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11,
                                                         15, 14, 13, 12]  # fmt: skip
    assert {cell[0] for cell in find(order="center")[:4]} == {5, 6, 9, 10}
    assert [len(cell) for cell in find(size=3)] == [9, 3, 3, 1]


def test_wrong_cells_and_tokens_are_one_line(fails):
    with fails(InputError, r"cells.size=\(2, 2, 2\) for a block of tokens \(4, 4\); .*each axis"):
        made(cells={"size": [2, 2, 2]})
    with fails(ConfigError, "cells.size: got 0"):
        made(cells={"size": 0})
    with fails(InputError, "models continuous tokens, and these are codes .*use autoregressive"):
        made(TokenSpec(blocks=((4,),), vocab=(16,)))
    with fails(InputError, "latents.scale: 2 numbers for tokens of 3 channels; .*one, or as many"):
        made(latents={"scale": [1.0, 2.0]})
    with fails(ConfigError, "second.heads=5: transformer.width=24 must be a multiple"):
        made(second={"heads": 5})
    with fails(InputError, "condition.text: kind=flow_ar reads classes and pooled"):
        made(condition={"text": {"dim": 4, "length": 3}})


# -- what a cell sees ------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", SHAPES)
def test_a_cell_sees_itself_and_earlier_ones(name):
    spec, cells = SHAPES[name]
    model = made(spec, cells=cells)
    x = torch.randn(1, spec.length, 3, generator=torch.Generator().manual_seed(0))
    time, vector = torch.full((1, len(model.cells)), 0.5), model.vector(Condition(), 1)
    before = model.run(x, time, vector, slice(None))
    for number, (start, stop) in enumerate(zip(model.starts, model.starts[1:], strict=False)):
        other = x.clone()
        other[:, stop - 1] += 1
        moved = (model.run(other, time, vector, slice(None)) - before).abs().amax((0, 2)) > 1e-6
        assert moved[start:].all() and not moved[:start].any(), number
        later = time.clone()
        later[:, number] = 0.9  # a time is known where its cell is
        moved = (model.run(x, later, vector, slice(None)) - before).abs().amax((0, 2)) > 1e-6
        assert moved[start:].all() and not moved[:start].any(), number


@pytest.mark.parametrize("name", SHAPES)
def test_the_cache_gives_what_whole_sequences_give(name):
    spec, cells = SHAPES[name]
    model = made(spec, cells=cells)
    settings = {"guidance": 3.0, "guidance_times": [0.1, 0.9]}
    one, two = (
        model.sample(LABEL, index=INDEX, seed=2, sampling={**settings, "cache": cache})
        for cache in (True, False)
    )
    torch.testing.assert_close(one.values, two.values, atol=1e-4, rtol=1e-4)
    alone = model.sample(LABEL.select([1]), index=INDEX[1:2], seed=2, sampling=settings)
    torch.testing.assert_close(alone.values[0], one.values[1], atol=1e-4, rtol=1e-4)
    for length in spec.eval_lengths[:-1]:
        part = model.sample(LABEL, index=INDEX, seed=2, sampling=settings, length=length).check()
        torch.testing.assert_close(held(part), held(one.prefix(length)), atol=1e-4, rtol=1e-4)


def test_guidance_grows_from_cell_to_cell(monkeypatch):
    """Scale 1 at the first, the setting at the last, as xAR has it."""
    seen = []
    monkeypatch.setattr(
        "vistok.generators.cell_sampling.guide",
        lambda found, scale, rows: seen.append(scale) or found[:rows],
    )
    made().sample(LABEL, index=INDEX, sampling={"guidance": 2.5, "steps": 1})
    assert seen == [1.0, 1.5, 2.0, 2.5]


@torch.no_grad()
def test_cut_tokens_are_learned_without_what_is_missing():
    spec, cells = SHAPES["sequence"]
    model, tokens = made(spec, cells=cells), tokens_of(spec)
    cut = tokens.prefix(3)
    total, count = model.evaluate(cut, LABEL)["velocity_error"]
    garbage = cut.values.clone()
    garbage[:, 3:] = 7.0
    other = Tokens(spec, values=garbage, keep=cut.keep)
    assert model.evaluate(other, LABEL)["velocity_error"][0] == pytest.approx(float(total))
    assert count == 3 * 3 * 3 * 8


# -- draws, scaling, layers ------------------------------------------------------------------------


def test_draws_are_of_cells_and_keyed():
    model = made(times={"kind": "uniform", "stratify": "local"})
    plain = made()
    for one in (plain, model):
        draws = one.draw(torch.arange(8), Rng(0), Progress(0, 1)).part("generator")
        assert draws.time.shape == (8, 4) and draws.noise.shape == (8, 16, 3)
        assert len(draws.time.unique()) == 32
    some = plain.draw(torch.tensor([5]), Rng(0), Progress(0, 1)).part("generator")
    whole = plain.draw(torch.arange(8), Rng(0), Progress(0, 1)).part("generator")
    assert torch.equal(some.time[0], whole.time[5]) and torch.equal(some.noise[0], whole.noise[5])


def test_values_are_scaled_and_scaled_back():
    values = torch.randn(50, 16, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([2.0, 0.0, 4.0])
    model = made(latents=measured(values).model_dump())
    x = model.scaled(Tokens(GRID, values=values))
    assert x[..., :2].mean((0, 1)).abs().max() < 1e-5 and x[..., 2].abs().max() < 1e-3
    torch.testing.assert_close(x[..., :2].std((0, 1)), torch.ones(2), atol=1e-2, rtol=0)
    back = model.tokens_from(x).values
    torch.testing.assert_close(back, values, atol=1e-5, rtol=1e-5)


def test_vectors_of_cells_modulate_their_positions():
    layer = Modulation(4, 6, 2)
    torch.nn.init.normal_(layer.proj.weight)
    vectors = torch.randn(2, 3, 4)
    each = vectors.repeat_interleave(torch.tensor([2, 1, 3]), dim=1)
    for one, other in zip(layer(vectors, (2, 1, 3)), layer(each), strict=True):
        torch.testing.assert_close(one, other)


def test_the_stochastic_solver_ends_where_the_data_are():
    """Data N(3, 0.5^2) in one dimension, whose velocity is known: mean and deviation come out."""

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        variance = t**2 + (1 - t) ** 2 * 0.25
        slope = (t - (1 - t) * 0.25) / variance
        return -3.0 + slope * (x - (1 - t) * 3.0)

    generator = torch.Generator().manual_seed(0)
    draw = lambda step=0: torch.randn(20_000, generator=generator, dtype=torch.float64)
    start = draw()
    found = {
        "stochastic": solve_stochastic(velocity, start, times_to_last(200, 0.01), draw),
        "still": solve_stochastic(velocity, start, times(200), draw, diffusion=0.0),
    }
    for x in found.values():
        assert x.mean().item() == pytest.approx(3.0, abs=0.02)
        assert x.std().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(found["still"], solve(velocity, start, times(200)))
    assert times_to_last(5, 0.2) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])


def test_the_rate_is_held_and_falls_late():
    rates = [warmup_cosine(step, 16, 3, 0.1, hold=5) for step in range(17)]
    assert rates[:3] == pytest.approx([0.25, 0.5, 0.75]) and set(rates[3:9]) == {1.0}
    assert rates[12] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[16] == pytest.approx(0.1)
