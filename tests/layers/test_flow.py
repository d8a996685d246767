"""Flow matching by hand: the path, times, solvers, guidance."""

import math

import pytest
import torch

from vistok.core.rng import Rng
from vistok.layers.flow.guidance import Guidance, GuidanceConfig
from vistok.layers.flow.path import (
    TimeConfig,
    clean_guess,
    interpolate,
    sample_times,
    uniform_numbers,
    velocity,
)
from vistok.layers.flow.solvers import solve, times


def test_the_straight_path():
    clean, noise = torch.tensor([[2.0], [4.0]]), torch.tensor([[10.0], [0.0]])
    time = torch.tensor([0.25, 1.0])
    x = interpolate(clean, noise, time)
    assert x.tolist() == [[4.0], [0.0]]  # 0.25 * 10 + 0.75 * 2; all noise at 1
    v = velocity(clean, noise)
    assert v.tolist() == [[8.0], [-4.0]]
    assert torch.equal(clean_guess(x, v, time), clean)


def test_times():
    u = torch.tensor([0.0, 0.5, 0.75])
    assert torch.equal(sample_times(u, TimeConfig(kind="uniform")), u)
    found = sample_times(u, TimeConfig(mean=1.0, std=2.0))
    assert found[0] < 1e-4 and found.isfinite().all()  # a uniform number may be 0
    assert float(found[1]) == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-6)
    assert float(found[2]) == pytest.approx(1 / (1 + math.exp(-(1 + 2 * 0.6744897502))), rel=1e-6)


def test_grids_of_times():
    assert times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = times(4, shift=3.0)
    assert shifted == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])  # 3 t / (1 + 2 t)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_converge_with_their_order(solver, order):
    """dx/dt = x from t = 1 to 0 is x exp(-1)."""
    start = torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for steps in (64, 128):
        end = solve(lambda x, t: x, start, times(steps), solver)
        errors.append(abs(float(end) - math.exp(-1)))
    # Heun's last step is Euler's, on an interval that shrinks as 1 / steps: second order overall.
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_a_straight_flow_needs_one_step():
    clean, noise = torch.randn(3, 2), torch.randn(3, 2)
    for solver in ("euler", "midpoint", "heun"):
        found = solve(lambda x, t: noise - clean, noise, times(1), solver)
        assert torch.allclose(found, clean, atol=1e-6)


def test_classifier_free_guidance():
    guide = Guidance(GuidanceConfig(scale=3.0))
    assert guide(torch.tensor([[2.0]]), torch.tensor([[1.0]])).tolist() == [[4.0]]  # 1 + 3 (2 - 1)


def test_adaptive_projected_guidance():
    config = GuidanceConfig(kind="apg", scale=3.0, momentum=-0.5, norm_threshold=2.5, eta=0.0)
    guide = Guidance(config)
    conditional, unconditional = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -1.0]])
    # difference (1, 1); its part orthogonal to (1, 0) is (0, 1); times scale - 1.
    assert guide(conditional, unconditional).tolist() == [[1.0, 2.0]]
    # difference (1, 6) - 0.5 (1, 1) = (0.5, 5.5), norm 5.5227, scaled to 2.5: y = 2.48971
    found = guide(conditional, torch.tensor([[0.0, -6.0]]))
    length = math.hypot(0.5, 5.5)
    assert found[0].tolist() == pytest.approx([1.0, 2 * 5.5 * 2.5 / length], rel=1e-6)
    with_parallel = Guidance(config.model_copy(update={"eta": 1.0}))
    assert with_parallel(conditional, unconditional).tolist() == [[3.0, 2.0]]


def test_guidance_acts_in_an_interval_and_grows():
    config = GuidanceConfig(scale=5.0, interval=(0.2, 0.8))
    assert [config.scale_at(t) for t in (0.1, 0.2, 0.5, 0.8, 0.9)] == [1.0, 5.0, 5.0, 5.0, 1.0]
    linear = GuidanceConfig(scale=5.0, schedule="linear")
    assert [linear.scale_at(t) for t in (1.0, 0.5, 0.0)] == [1.0, 3.0, 5.0]
    cosine = GuidanceConfig(scale=5.0, schedule="cosine")
    assert [cosine.scale_at(t) for t in (1.0, 0.5, 0.0)] == pytest.approx([1.0, 3.0, 5.0])
    guide = Guidance(linear)
    assert guide(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 3.0).tolist() == [[4.0]]
    with pytest.raises(ValueError, match="the smaller time first"):
        GuidanceConfig(interval=(0.8, 0.2))


def test_guidance_without_a_bound():
    config = GuidanceConfig(kind="apg", scale=3.0, momentum=0.0, norm_threshold=0.0)
    found = Guidance(config)(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -9.0]]))
    assert found.tolist() == [[1.0, 18.0]]  # (1, 9) orthogonal to (1, 0), times 2


def test_times_of_the_mode_density():
    """Equation 20 of SD3: 1 - u - s (cos^2(pi u / 2) - 1 + u), one to one for these scales."""
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    for scale in (-1.0, 0.25, 1.29):
        found = sample_times(u, TimeConfig(kind="mode", mode_scale=scale))
        assert float(found[0]) == pytest.approx(1) and float(found[-1]) == pytest.approx(0)
        assert (found.diff() < 1e-12).all()
    half = sample_times(torch.tensor([0.25]), TimeConfig(kind="mode", mode_scale=0.5))
    expected = 0.75 - 0.5 * (math.cos(math.pi / 8) ** 2 - 0.75)
    assert float(half) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["global", "local"])
def test_stratified_numbers_have_one_in_each_stratum(form):
    index, rng = torch.tensor([5, 3, 99, 12, 7, 0, 41, 2]), Rng(0, "time", 3)
    found = uniform_numbers(index, rng, TimeConfig(stratify=form))
    assert sorted((found * 8).long().tolist()) == list(range(8))
    assert torch.equal(found, uniform_numbers(index, rng, TimeConfig(stratify=form)))
    other = uniform_numbers(index.flip(0), rng, TimeConfig(stratify=form)).flip(0)
    assert torch.equal(found, other) == (form == "global")  # keyed by sample, not by place
    assert torch.equal(uniform_numbers(index, rng, TimeConfig()), rng.uniform(index))
