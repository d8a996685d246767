"""VQ: losses, gradients, EMA, initialization, revival, nearest codes, all on hand-made numbers."""

import math

import pytest
import torch

from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.quantizers import nearest
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.quantizers.codebook import kmeans


def vq(rows=None, **options) -> VQ:
    options = {"l2_norm": False, "init": "normal"} | options
    if rows is None:
        return VQ(VQConfig(**options))
    rows = torch.tensor(rows)
    quantizer = VQ(VQConfig(codebook_size=len(rows), dim=rows.shape[1], **options))
    with torch.no_grad():
        quantizer._set_rows(torch.ones(len(rows), dtype=torch.bool), rows)
    return quantizer


def lat(z) -> Latents:
    z = torch.as_tensor(z)
    z = z[None] if z.ndim == 2 else z
    return Latents(z, ((z.shape[1],),))


def test_losses_by_hand():
    # (1, 0) -> (0, 0); (3, 2) is 13 from it and 5 from (4, 0).
    quantizer = vq([[0.0, 0.0], [4.0, 0.0]])
    z = torch.tensor([[1.0, 0.0], [3.0, 2.0]], requires_grad=True)
    result = quantizer(lat(z))
    assert result.indices.flatten().tolist() == [0, 1]
    # squares (1, 0, 1, 4) over four elements
    assert result.losses["commitment"].item() == result.losses["codebook"].item() == 1.5
    assert quantizer.loss_weights == {"codebook": 1.0, "commitment": 0.25}
    result.losses["codebook"].backward(retain_graph=True)
    # 2 (e - z) / 4, and no gradient to the latents
    assert quantizer.codebook.grad.tolist() == [[-0.5, 0], [0.5, -1]] and z.grad is None
    quantizer.codebook.grad = None
    result.losses["commitment"].backward()
    assert z.grad.tolist() == [[0.5, 0], [-0.5, 1]] and quantizer.codebook.grad is None


def test_straight_through_gradient():
    quantizer = vq([[0.0, 0.0], [4.0, 0.0]])
    z = torch.tensor([[1.0, 0.5], [3.0, 2.0]], requires_grad=True)
    g = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (quantizer(lat(z)).values * g).sum().backward()
    assert torch.equal(z.grad, g) and quantizer.codebook.grad is None


def test_l2_norm_compares_directions_and_gradients_pass_the_norm():
    # By distance (3, 0.1) is nearer to (4, 3); by direction to (0.1, 0).
    quantizer = vq([[4.0, 3.0], [0.1, 0.0]], l2_norm=True)
    z = torch.tensor([[3.0, 0.1]], requires_grad=True)
    result = quantizer(lat(z))
    assert result.indices.item() == 1
    assert torch.allclose(result.values, torch.tensor([[[1.0, 0.0]]]))
    g = torch.tensor([2.0, -1.0])
    (result.values * g).sum().backward()
    # d(z/|z|): (g - n (n.g)) / |z|
    n = z[0].detach() / z[0].detach().norm()
    expected = (g - n * (n @ g)) / z[0].detach().norm()
    assert torch.allclose(z.grad[0], expected, atol=1e-6)
    # Losses see normalized vectors too.
    square = (n - torch.tensor([1.0, 0.0])).square().mean()
    assert torch.allclose(result.losses["commitment"], square)


def test_perturbed_gradient_reaches_latents_only():
    quantizer = vq([[0.0], [1.0], [2.0]])
    z = torch.tensor([[0.1], [1.1]], requires_grad=True)
    result = quantizer(lat(z), Draws(ranks=torch.tensor([[[1], [0]]])))
    assert result.values.flatten().tolist() == [1, 1]
    (result.values * torch.tensor([[3.0], [5.0]])).sum().backward()
    assert z.grad.flatten().tolist() == [3, 5] and quantizer.codebook.grad is None


# -- EMA -------------------------------------------------------------------------------------------


def closed_form(rows, usage, sums, hits, points_sum, decay):
    hits, points_sum = torch.tensor(hits), torch.tensor(points_sum)
    usage = decay * usage + (1 - decay) * hits / hits.sum()
    sums = decay * sums + (1 - decay) * points_sum / hits.sum()
    return usage, sums, sums / ((usage + 1e-5 / len(rows)) / (1 + 1e-5))[:, None]


def test_ema_update_by_hand():
    rows = [[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]]
    quantizer = vq(rows, update="ema", decay=0.9).train()
    assert quantizer.loss_weights == {"commitment": 0.25}
    assert not quantizer.codebook.requires_grad
    assert set(quantizer(lat([[0.0, 0.0]])).losses) == {"commitment"}
    quantizer.after_step(Rng(0))
    quantizer = vq(rows, update="ema", decay=0.9).train()
    # Two micro-batches: codes 0, 0, 1 and then 0. Code 0 sums to (3, 3), code 1 to (5, 1).
    quantizer(lat([[1.0, 1.0], [1.0, 0.0], [5.0, 1.0]]))
    quantizer(lat([[1.0, 2.0]]))
    assert quantizer.after_step(Rng(0)) == {}
    third = torch.full((3,), 1 / 3)
    usage, sums, expected = closed_form(
        rows,
        third,
        torch.tensor(rows) / 3,
        [3.0, 1.0, 0.0],
        [[3.0, 3.0], [5.0, 1.0], [0.0, 0.0]],
        0.9,
    )
    assert torch.allclose(quantizer.usage, usage)
    assert torch.allclose(quantizer.codebook, expected, atol=1e-6)
    # The next step goes on from there, and nothing of this one is left.
    quantizer(lat([[0.0, 8.0]]))
    quantizer.after_step(Rng(0))
    usage, sums, expected = closed_form(
        rows, usage, sums, [0.0, 0.0, 1.0], [[0.0, 0.0], [0.0, 0.0], [0.0, 8.0]], 0.9
    )
    assert torch.allclose(quantizer.codebook, expected, atol=1e-6)
    before = quantizer.codebook.clone()
    assert quantizer.after_step(Rng(0)) == {} and torch.equal(quantizer.codebook, before)


def test_ema_moves_to_the_mean_of_its_latents():
    quantizer = vq([[0.0], [10.0]], update="ema", decay=0.5).train()
    for _ in range(40):
        quantizer(lat([[1.0], [2.0], [12.0]]))
        quantizer.after_step(Rng(0))
    assert torch.allclose(quantizer.codebook.flatten(), torch.tensor([1.5, 12.0]), atol=1e-3)
    assert torch.allclose(quantizer.usage, torch.tensor([2 / 3, 1 / 3]), atol=1e-4)


def test_evaluation_counts_nothing():
    quantizer = vq([[0.0], [10.0]], update="ema").eval()
    quantizer(lat([[1.0]]))
    before = quantizer.codebook.clone()
    quantizer.train().after_step(Rng(0))
    assert torch.equal(quantizer.codebook, before) and float(quantizer.usage[0]) == 0.5


def test_what_a_frozen_step_counted_is_dropped():
    quantizer = vq([[0.0], [10.0]], update="ema").train()
    quantizer(lat([[1.0]]))
    assert quantizer.eval().after_step(Rng(0)) == {} and float(quantizer.usage[0]) == 0.5
    assert not quantizer._hits.any() and not quantizer._sums.any()


def test_usage_is_tracked_for_gradient_codebooks_too():
    quantizer = vq([[0.0], [10.0]], decay=0.75).train()
    quantizer(lat([[1.0], [1.0]]))
    quantizer.after_step(Rng(0))
    assert quantizer.usage.tolist() == [0.625, 0.375]  # 0.75 / 2 + 0.25 x (1, 0)


def test_a_step_in_the_making_is_not_saved():
    quantizer = vq([[0.0], [1.0]], update="ema")
    assert set(quantizer.state_dict()) == {"codebook", "usage", "filled", "embed_sum"}
    assert set(vq([[0.0], [1.0]]).state_dict()) == {"codebook", "usage", "filled"}


# -- initialization and revival --------------------------------------------------------------------


def test_data_initialization_takes_latents():
    z = torch.arange(40.0).view(20, 2)
    quantizer = vq(codebook_size=8, dim=2, init="data", update="ema")
    assert quantizer.wants_data
    quantizer.initialize(lat(z), Rng(1, "init"))
    assert not quantizer.wants_data
    rows = {tuple(row) for row in quantizer.codebook.tolist()}
    assert len(rows) == 8 and rows <= {tuple(row) for row in z.tolist()}
    assert torch.allclose(quantizer.embed_sum, quantizer.codebook / 8)
    # Saved with the weights: a resumed run does not ask again.
    other = vq(codebook_size=8, dim=2, init="data", update="ema")
    other.load_state_dict(quantizer.state_dict())
    assert not other.wants_data


def test_data_initialization_with_few_latents_repeats_them():
    quantizer = vq(codebook_size=5, dim=1, init="data")
    quantizer.initialize(lat(torch.tensor([[1.0], [2.0]])), Rng(1))
    assert sorted(quantizer.codebook.flatten().tolist()) in ([1, 1, 1, 2, 2], [1, 1, 2, 2, 2])


def test_no_data_is_wanted_otherwise():
    assert not vq(codebook_size=4, dim=2, init="uniform").wants_data
    limit = vq(codebook_size=4, dim=50, init="uniform").codebook.detach().abs().max()
    assert 0.2 < float(limit) <= 0.25


def test_kmeans_by_hand():
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [12.0]])
    centers = kmeans(points, torch.tensor([[0.0], [1.0], [99.0]]))
    # Starting at 0, 1: {0}, {1, 2, 10, 12} -> 0, 6.25 -> {0, 1, 2}, {10, 12}; 99 stays empty.
    assert centers.flatten().tolist() == [1, 11, 99]


def test_kmeans_initialization_is_a_fixed_point_near_the_data():
    torch.manual_seed(4)
    z = torch.randn(200, 3) + torch.tensor([[5.0, 0, 0]])
    quantizer = vq(codebook_size=6, dim=3, init="kmeans", l2_norm=True)
    quantizer.initialize(lat(z * 7), Rng(2))
    rows = quantizer.codebook.detach()
    assert torch.allclose(rows.norm(dim=-1), torch.ones(6), atol=1e-5)
    taken = vq(codebook_size=6, dim=3, init="data", l2_norm=True)
    taken.initialize(lat(z * 7), Rng(2))
    errors = [float(q.eval()(lat(z)).losses["commitment"]) for q in (quantizer, taken)]
    assert errors[0] < 0.8 * errors[1]


def test_dead_codes_become_recent_latents():
    quantizer = vq([[0.0], [50.0], [60.0], [70.0]], decay=0.5, revive_below=0.5).train()
    # usage: (.625, .125 x 3); 0.125 is not below 0.5 / 4.
    quantizer.remember(quantizer(lat([[1.0], [2.0], [3.0]])))
    assert quantizer.after_step(Rng(0)) == {"revived_codes": 0.0}
    # then (.8125, .0625 x 3): three are dead. Only this step's latents are taken.
    quantizer.remember(quantizer(lat([[4.0], [5.0], [6.0]])))
    assert quantizer.after_step(Rng(0)) == {"revived_codes": 3.0}
    assert quantizer.codebook[0].item() == 0
    assert sorted(quantizer.codebook[1:].flatten().tolist()) == [4, 5, 6]
    assert quantizer.usage.tolist() == [0.8125, 0.25, 0.25, 0.25]
    assert quantizer._recent == []


def test_revival_is_keyed():
    def run(seed: int):
        quantizer = vq([[0.0]] + [[50.0]] * 3, decay=0.01, revive_below=0.5).train()
        quantizer.remember(quantizer(lat(torch.arange(30.0)[:, None] / 30)))
        quantizer.after_step(Rng(seed))
        return quantizer.codebook.flatten().tolist()

    assert run(1) == run(1) != run(2)


# -- nearest codes ---------------------------------------------------------------------------------


def integers(*shape, seed=0, top=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top + 1, shape, generator=generator).float()


def by_hand(a, codes):
    """Ranks by (distance, index), in Python integers."""
    table = []
    for row in a.int().tolist():
        scored = [
            (sum((x - y) ** 2 for x, y in zip(row, code, strict=True)), k)
            for k, code in enumerate(codes.int().tolist())
        ]
        table.append([k for _, k in sorted(scored)])
    return torch.tensor(table)


def test_nearest_codes_with_ties_equal_a_full_sort():
    a, codes = integers(60, 3), integers(40, 3, seed=1)  # 343 places: many ties
    expected = by_hand(a, codes)
    assert torch.equal(nearest.nearest_codes(a, codes, 40), expected)
    assert torch.equal(nearest.nearest_codes(a, codes, 7), expected[:, :7])
    assert torch.equal(nearest.nearest_code(a, codes), expected[:, 0])


def test_vq_neighbours_equal_a_full_sort():
    quantizer = vq(integers(40, 3, seed=1).tolist())
    near = quantizer.neighbours(integers(60, 3).view(5, 12, 1, 3), 40)
    assert torch.equal(near.view(60, 40), by_hand(integers(60, 3), integers(40, 3, seed=1)))


def test_neighbours_are_not_found_in_bf16():
    quantizer = vq(torch.randn(300, 6).tolist())
    queries, ranks = torch.randn(1, 400, 1, 6), torch.full((1, 400, 1), 7)
    expected = quantizer.perturb(queries, ranks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.perturb(queries, ranks), expected)


def test_chunks_change_nothing(monkeypatch):
    a, codes = integers(60, 3, top=50), integers(40, 3, seed=1, top=50)
    whole = nearest.nearest_code(a, codes), nearest.nearest_codes(a, codes, 9)
    costs = [integers(11, size, seed=size).square() for size in (3, 4, 2, 5)]
    grid = nearest.nearest_on_grid(costs, 13)
    monkeypatch.setattr(nearest, "_CHUNK", 100)
    monkeypatch.setattr(nearest, "_ROWS", 7)
    monkeypatch.setattr(nearest, "_CODES", 6)
    assert torch.equal(nearest.nearest_code(a, codes), whole[0])
    assert torch.equal(nearest.nearest_codes(a, codes, 9), whole[1])
    assert torch.equal(nearest.nearest_on_grid(costs, 13), grid)
    assert nearest.nearest_code(a[:0], codes).shape == (0,)


def test_keys_order_all_floats():
    scores = torch.tensor([[0.0, -0.0, -1.5, 2.0, -1.5, 1e-40, -1e30, float("inf")]])
    assert nearest._keys(scores, 0).argsort(stable=True).tolist() == [[6, 2, 4, 0, 1, 5, 3, 7]]


@pytest.mark.parametrize("width", [64, 128, 192, 200])
def test_blocks_find_the_first_of_equal_scores(width):
    scores = integers(50, width)  # seven values: every row has ties
    low, column = nearest._lowest(scores)
    assert low.tolist() == [min(row) for row in scores.tolist()]
    assert column.tolist() == [row.index(min(row)) for row in scores.tolist()]


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("sizes", [(2,), (3, 4), (2, 2, 2, 2, 2), (4, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("count", [1, 5, 10**4])
def test_nearest_on_grid_equals_enumeration(sizes, count, flips):
    costs = [integers(20, size, seed=i + 7, top=2).abs() for i, size in enumerate(sizes)]
    found = nearest.nearest_on_grid(costs, count, flips)
    total = 1
    for size in sizes:
        total *= size
    assert found.shape == (20, min(count, total), len(sizes))
    for n in range(20):
        rows = [cost[n].tolist() for cost in costs]
        best = [row.index(min(row)) for row in rows]
        scored = []
        for index in range(total):
            digits, left = [], index
            for size in sizes:
                digits.append(left % size)
                left //= size
            price = sum(row[d] for row, d in zip(rows, digits, strict=True))
            moved = sum(d != b for d, b in zip(digits, best, strict=True)) if flips else 0
            scored.append((price, moved, index, digits))
        expected = [digits for *_, digits in sorted(scored)[:count]]
        assert found[n].tolist() == expected


def test_entropy_terms_by_hand():
    """Latents at the first code, at the second, and between them: p = softmax(-distance / T)."""
    weights = {"codebook": 1.0, "commitment": 0.25, "entropy_sample": 0.1, "entropy_batch": -0.1}
    quantizer = vq([[0.0], [2.0]], entropy_temperature=2.0, loss_weights=weights)
    z = torch.tensor([[0.0], [2.0], [1.0]], requires_grad=True)
    losses = quantizer(lat(z)).losses
    near = 1 / (1 + math.exp(-2))  # distances 0 and 4
    entropy = -(near * math.log(near) + (1 - near) * math.log(1 - near))
    assert losses["entropy_sample"].item() == pytest.approx((2 * entropy + math.log(2)) / 3)
    assert losses["entropy_batch"].item() == pytest.approx(-math.log(0.5 + 1e-5))
    losses["entropy_sample"].backward()
    assert z.grad[0, 0] > 0 > z.grad[1, 0]  # it grows towards the middle
    assert quantizer.codebook.grad.any()
    assert set(vq([[0.0], [2.0]])(lat(z)).losses) == {"codebook", "commitment"}


def test_rows_of_length_one_at_the_start():
    rows = vq(codebook_size=50, dim=6, init="sphere").codebook
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(50))


def test_a_gradient_that_goes_on_to_the_direction_alone():
    """GigaTok's rotation of unit latents: nothing is left along the latent, whatever its length."""
    gradients = {}
    for gradient in ("rotation", "rotation_of_direction"):
        quantizer = vq([[0.0, 3.0], [-1.0, 0.0]], gradient=gradient)
        z = torch.tensor([[1.0, 2.0]], requires_grad=True)
        values = quantizer(lat(z)).values
        assert values.tolist() == [[[0.0, 3.0]]]
        (values * torch.tensor([1.0, 1.0])).sum().backward()
        gradients[gradient] = z.grad[0]
    along = torch.tensor([1.0, 2.0]) / 5
    both, direction = gradients["rotation"], gradients["rotation_of_direction"]
    torch.testing.assert_close(direction, both - (both @ along) * torch.tensor([1.0, 2.0]))
    assert abs(direction @ along) < 1e-6 < abs(both @ along)
