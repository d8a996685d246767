"""FSQ: bound, gradient, indices, neighbours."""

import math

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.quantizers.atoms.fsq import FSQ, FSQConfig
from vistok.quantizers.compose.residual import ResidualConfig


def fsq(*levels) -> FSQ:
    return FSQ(FSQConfig(levels=levels))


def lat(z) -> Latents:
    return Latents(z, ((z.shape[1],),))


def test_first_level_is_the_fastest_digit():
    quantizer = fsq(4, 3)
    codes = quantizer.lookup(torch.arange(12)[None, :, None])[0]
    # even 4: -1, -0.5, 0, 0.5; odd 3: -1, 0, 1
    assert codes[:5].tolist() == [[-1, -1], [-0.5, -1], [0, -1], [0.5, -1], [-1, 0]]
    assert codes[-1].tolist() == [0.5, 1]


def test_bound_and_rounding_by_hand():
    quantizer = fsq(4, 3)
    z = torch.tensor([[[0.3, -0.4], [9.0, 9.0], [-9.0, -9.0], [0.0, 0.0]]])
    half = (3 * 1.001 / 2, 2 * 1.001 / 2)
    shift = math.atanh(0.5 / half[0])
    bounded = quantizer.bound(z)[0]
    assert bounded[0, 0].item() == pytest.approx(math.tanh(0.3 + shift) * half[0] - 0.5, abs=1e-6)
    assert bounded[0, 1].item() == pytest.approx(math.tanh(-0.4) * half[1], abs=1e-6)
    result = quantizer(lat(z))
    # 0.3 -> 0.245 -> 0 (digit 2); -0.4 -> -0.38 -> 0 (digit 1)
    assert result.indices.flatten().tolist() == [2 + 4 * 1, 3 + 4 * 2, 0, 2 + 4 * 1]
    assert result.losses == {} and not list(quantizer.parameters())
    assert quantizer.state_dict() == {}


def test_gradient_is_that_of_the_bound():
    quantizer = fsq(8, 5)
    z = torch.randn(2, 6, 2, requires_grad=True)
    g = torch.randn(2, 6, 2)
    (quantizer(lat(z)).values * g).sum().backward()
    slope = (1 - torch.tanh(z + quantizer.shift).square()) * quantizer.scale / quantizer.middle
    assert torch.allclose(z.grad, g * slope.detach(), atol=1e-6)


def full_sort(quantizer: FSQ, queries, count):
    """Every code of the grid, by (sum of squares, index); squares in fp32 as they are stored."""
    size = quantizer.vocab[0]
    codes = quantizer.lookup(torch.arange(size)[:, None])
    rows = []
    for anchor in queries.flatten(0, 2):
        distance = (anchor - codes).square().double()
        total = distance[:, 0]
        for i in range(1, codes.shape[1]):
            total = distance[:, i] + total
        rows.append(total.argsort(stable=True)[:count])
    return torch.stack(rows)


@pytest.mark.parametrize("levels", [(4, 3), (8, 5, 5), (2, 2, 7), (8, 8, 8, 8)], ids=str)
def test_neighbours_equal_a_full_sort(levels):
    quantizer = fsq(*levels)
    queries = quantizer(lat(torch.randn(2, 5, len(levels)))).queries
    queries[0, 0] = 0  # ties in every direction
    queries[0, 1] = 0.25
    count = min(300, quantizer.vocab[0])
    near = quantizer.neighbours(queries, count)
    assert torch.equal(near.view(10, count), full_sort(quantizer, queries, count))


def test_large_grids_are_never_listed():
    quantizer = fsq(16, 16, 16, 16, 8)  # 2**19 codes
    queries = quantizer(lat(torch.randn(1, 3, 5))).queries
    near = quantizer.neighbours(queries, 50).view(3, 50)
    assert torch.equal(near, full_sort(quantizer, queries, 50))
    huge = fsq(*(8,) * 12)  # 2**36
    queries = huge(lat(torch.randn(1, 2, 12))).queries
    near = huge.neighbours(queries, 20)
    codes = huge.lookup(near[:, :, 0])
    distance = (codes - queries).square().sum(-1)
    assert (distance.diff(dim=-1) > -1e-6).all()


def test_rank_zero_is_the_clean_code_of_very_many():
    # The expanded square |a|^2 + |e|^2 - 2 a.e gets one of these wrong.
    quantizer = fsq(8, 8, 8, 8)
    torch.manual_seed(0)
    result = quantizer(lat(torch.randn(100, 1000, 4)))
    zero = torch.zeros(100, 1000, 1, dtype=torch.long)
    assert torch.equal(quantizer.perturb(result.queries, zero), result.indices)


def test_levels_of_one_are_a_config_error():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        FSQConfig(levels=(8, 1))


def test_saturation_is_only_computed_when_it_is_weighted():
    z = torch.tensor([[[3.5, -4.5], [0.0, 2.5]]])
    assert fsq(4, 3)(lat(z)).losses == {}
    weighted = FSQ(FSQConfig(levels=(4, 3), loss_weights={"saturation": 0.1}))
    # relu(|z| - 2.5)^2 = 1, 4, 0, 0
    assert weighted(lat(z)).losses["saturation"].item() == 1.25
    assert weighted.loss_weights == {"saturation": 0.1}


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.05, 1.0])
@pytest.mark.parametrize("level", [2, 3, 4, 7, 8, 255, 1000, 1001, 1002, 4097, 2**15, 2**16])
def test_every_code_of_every_number_of_levels_round_trips(level, eps):
    """Indices stay inside, the ends are reached, and each code is the code of its own value."""
    quantizer = FSQ(FSQConfig(levels=(level, 3), eps=eps))
    ends = torch.tensor([-1e30, -50.0, -9.0, 0.0, 9.0, 50.0, 1e30])
    found = quantizer(lat(torch.stack([ends, torch.zeros(7)], -1)[None])).indices.flatten()
    assert found.tolist()[:2] == [level, level] and found.tolist()[-2:] == [2 * level - 1] * 2
    codes = quantizer.lookup((level + torch.arange(level))[None, :, None])  # [1, L, 2]
    assert len(codes[0, :, 0].unique()) == level
    assert codes.abs().max() <= 1
    inside = (codes.double() * quantizer.middle + quantizer.offset) / quantizer.scale.double()
    z = (torch.atanh(inside) - quantizer.shift.double()).float()
    result = quantizer(lat(z))
    assert torch.equal(result.indices.flatten(), level + torch.arange(level))
    assert torch.equal(result.values, codes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": (2**16 + 1,)}, "levels.0: got 65537; expected a whole number from 2 to 65,536"),
        ({"levels": (8,) * 17}, "levels=.* make 2.25e.15 codes; expected 2..48 or fewer"),
        ({"levels": (2**40,)}, "levels.0"),
        ({"eps": 0.0}, "eps: got 0.0"),
        ({"eps": -0.5}, "eps: got -0.5"),
        ({"eps": 3.0}, "eps: got 3.0"),
    ],
    ids=str,
)
def test_what_could_not_round_trip_is_refused(changes, words, fails):
    with fails(ConfigError, words):
        validate(FSQConfig, changes)


def test_ifsq_bounds_by_a_steeper_curve():
    """2 sigmoid(1.6 x) - 1 in the place of tanh; a latent of 0 stays 0 for even levels too."""
    levels = (5, 8, 4)
    quantizer = FSQ(FSQConfig(levels=levels, bound="ifsq"))
    z = torch.linspace(-4, 4, 33)[:, None].expand(-1, 3)
    half = (torch.tensor(levels) - 1) * 1.001 / 2
    offset = torch.tensor([0.0, 0.5, 0.5])
    shift = torch.atanh(offset / half) / 0.8
    expected = (2 * torch.sigmoid(1.6 * (z + shift)) - 1) * half - offset
    torch.testing.assert_close(quantizer.bound(z), expected)
    assert torch.allclose(quantizer.bound(torch.zeros(1, 3)), torch.zeros(1, 3), atol=1e-6)
    plain = FSQ(FSQConfig(levels=levels))
    torch.testing.assert_close(quantizer.bound(z), plain.bound(0.8 * (z + shift) - 0.8 * shift))
    # Normal latents are spread almost evenly between the bounds; tanh drives them to both ends.
    normal = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0))
    uneven = []
    for one in (plain, quantizer):
        share = torch.histc(one.bound(normal)[:, 0] / half[0], 10, -1, 1) / len(normal)
        uneven.append(float((share - 0.1).abs().max()))
    assert uneven[1] < 0.03 < uneven[0]


def test_residual_levels_round_what_the_earlier_ones_miss():
    """Every level has its own curve, through which its gradient runs (Cosmos's residual FSQ)."""
    tree = {"kind": "residual", "levels": 3, "quantizer": {"kind": "fsq", "levels": [7, 4]}}
    residual = build(validate(ResidualConfig, tree))
    residual.layout(((2, 3),))
    z = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one, rest, total, found = fsq(7, 4), z, 0, []
    for _ in range(3):
        level = one(lat(rest))
        rest, total = rest - level.values.detach(), total + level.values
        found.append(level.indices)
    result = residual(Latents(z, ((2, 3),)))
    assert torch.equal(result.indices, torch.cat(found, 1)) and result.losses == {}
    torch.testing.assert_close(result.values, total)
    torch.testing.assert_close(residual.lookup(result.indices), total)
    weights = torch.randn(2, 6, 2)
    grads = [torch.autograd.grad((v * weights).sum(), z)[0] for v in (result.values, total)]
    torch.testing.assert_close(*grads)
    kept = residual.quantize(Latents(z, ((2, 3),)), Draws(keep=torch.tensor([1, 3])))
    torch.testing.assert_close(kept.values[0], one(lat(z)).values[0])
    torch.testing.assert_close(kept.clean, total)
    assert not torch.equal(kept.values[0], total[0])


def test_a_residual_level_is_saturated_by_what_is_left():
    atom = {"kind": "fsq", "levels": [3], "loss_weights": {"saturation": 1.0}}
    residual = build(validate(ResidualConfig, {"kind": "residual", "levels": 2, "quantizer": atom}))
    residual.layout(((1,),))
    loss = residual(Latents(torch.full((1, 1, 1), 4.0), ((1,),))).losses["saturation"]
    assert loss.item() == pytest.approx((1.5**2 + 0.5**2) / 2)  # 4, then 4 - 1
