"""Flow matching by hand: the path, times, solvers, guidance."""

import math

import pytest
import torch

from vistok.layers.flow.guidance import Guidance, GuidanceConfig
from vistok.layers.flow.path import (
    TimeConfig,
    clean_guess,
    interpolate,
    sample_times,
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
