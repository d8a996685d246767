"""LFQ, BSQ and binary latents: signs, entropies, straight-through, flips, on hand-made numbers."""

import itertools
import math

import pytest
import torch

from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.metrics.codebook import CodebookStats
from vistok.quantizers.atoms import bits
from vistok.quantizers.atoms.binary import Binary, BinaryConfig
from vistok.quantizers.atoms.lfq import LFQ, LFQConfig
from vistok.quantizers.nearest import nearest_on_grid
from vistok.tokens import Tokens


def lfq(count: int, **options) -> LFQ:
    return LFQ(LFQConfig(bits=count, **options))


def lat(z) -> Latents:
    z = torch.as_tensor(z)
    z = z[None] if z.ndim == 2 else z
    return Latents(z, ((z.shape[1],),))


def test_bits_and_indices():
    every = torch.arange(64)
    assert torch.equal(bits.bits_to_index(bits.index_to_bits(every, 6)), every)
    assert bits.index_to_bits(torch.tensor(11), 5).tolist() == [1, 1, 0, 1, 0]


def test_lfq_by_hand():
    quantizer = lfq(3)
    z = torch.tensor([[0.5, -2.0, 0.0]], requires_grad=True)
    result = quantizer(lat(z))
    assert result.values.tolist() == [[[1, -1, -1]]] and result.indices.item() == 1
    # (0.5 - 1)^2, (-2 + 1)^2, (0 + 1)^2
    assert result.losses["commitment"].item() == pytest.approx((0.25 + 1 + 1) / 3)
    g = torch.tensor([2.0, -3.0, 4.0])
    (result.values * g).sum().backward()
    assert torch.equal(z.grad[0], g)


def test_bsq_lives_on_the_sphere():
    quantizer = lfq(4, sphere=True)
    z = torch.tensor([[3.0, -4.0, 0.0, 12.0]], requires_grad=True)  # length 13
    result = quantizer(lat(z))
    assert result.values.tolist() == [[[0.5, -0.5, -0.5, 0.5]]]
    assert result.indices.item() == 1 + 8
    n = torch.tensor([3, -4, 0, 12]) / 13
    expected = (n - torch.tensor([0.5, -0.5, -0.5, 0.5])).square().mean()
    assert torch.allclose(result.losses["commitment"], expected)
    g = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (result.values * g).sum().backward()
    assert torch.allclose(z.grad[0], (g - n * (n @ g)) / 13, atol=1e-6)


def enumerated(z: torch.Tensor, magnitude: float, temperature: float) -> torch.Tensor:
    """[n, 2^C] fp64: softmax over all codes of -|z - c|^2 / temperature."""
    count = z.shape[-1]
    codes = (bits.index_to_bits(torch.arange(2**count), count).double() * 2 - 1) * magnitude
    distance = (z.double()[:, None] - codes).square().sum(-1)
    return (-distance / temperature).softmax(-1)


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(p, p).sum(-1)


@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.05, 3.0])
def test_entropies_equal_the_softmax_over_all_codes(sphere, temperature):
    quantizer = lfq(5, sphere=sphere, temperature=temperature, entropy_group=5)
    z = torch.randn(30, 5)
    losses = quantizer(lat(z)).losses
    if sphere:
        z = z / z.norm(dim=-1, keepdim=True)
    p = enumerated(z, quantizer.magnitude, temperature)
    assert losses["entropy_sample"].item() == pytest.approx(entropy(p).mean().item(), abs=1e-5)
    assert losses["entropy_batch"].item() == pytest.approx(entropy(p.mean(0)).item(), abs=1e-5)


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_large_groups_made_of_two_halves_equal_the_full_table(monkeypatch, count, weighted):
    monkeypatch.setattr(bits, "_WHOLE", 3)  # groups of more bits are products of two halves
    z = torch.randn(30, count, requires_grad=True)
    weights = torch.rand(30) * 2 if weighted else None
    found = bits.batch_entropy(4 * z, count, weights)
    p = enumerated(z, 1.0, 1.0)
    mean = (p if weights is None else p * weights[:, None]).mean(0)
    expected = entropy(mean)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    (grad,), (true,) = (torch.autograd.grad(value, z) for value in (found, expected))
    assert torch.allclose(grad, true, atol=1e-5)


def test_entropy_of_one_sample_and_of_a_balanced_batch():
    # One sample: its own entropy. z = 0: all bits are coins, C ln 2.
    losses = lfq(3)(lat(torch.zeros(1, 3))).losses
    assert losses["entropy_sample"].item() == pytest.approx(3 * math.log(2), abs=1e-6)
    assert losses["entropy_batch"].item() == pytest.approx(3 * math.log(2), abs=1e-6)
    # Certain samples on all 8 codes: sample entropy 0, batch entropy 3 ln 2.
    corners = torch.tensor(list(itertools.product((-50.0, 50.0), repeat=3)))
    losses = lfq(3)(lat(corners)).losses
    assert losses["entropy_sample"].item() == pytest.approx(0, abs=1e-6)
    assert losses["entropy_batch"].item() == pytest.approx(3 * math.log(2), abs=1e-6)
    # Only 000 and 111: ln 2 jointly, but each bit alone looks like a coin.
    two = torch.tensor([[-50.0] * 3, [50.0] * 3])
    joint = lfq(3, entropy_group=3)(lat(two)).losses["entropy_batch"]
    apart = lfq(3, entropy_group=1)(lat(two)).losses["entropy_batch"]
    pairs = lfq(3, entropy_group=2)(lat(two)).losses["entropy_batch"]
    assert joint.item() == pytest.approx(math.log(2), abs=1e-6)
    assert apart.item() == pytest.approx(3 * math.log(2), abs=1e-6)
    assert pairs.item() == pytest.approx(2 * math.log(2), abs=1e-6)


def test_entropies_stay_finite_far_out():
    z = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    losses = lfq(3, temperature=0.01)(lat(z)).losses
    (losses["entropy_sample"] - losses["entropy_batch"]).backward()
    assert all(value.isfinite() for value in losses.values()) and z.grad.isfinite().all()


def test_entropy_gradients_have_the_right_sign():
    z = torch.full((4, 2), 0.2, requires_grad=True)
    losses = lfq(2)(lat(z)).losses
    grad = torch.autograd.grad(losses["entropy_sample"], z)[0]
    assert (grad < 0).all()  # more certain = less entropy
    assert lfq(2).loss_weights["entropy_batch"] < 0 < lfq(2).loss_weights["entropy_sample"]


# -- binary ----------------------------------------------------------------------------------------


def binary(count: int = 3, embed=None, **options) -> Binary:
    """logits = z, so that everything can be said about z."""
    quantizer = Binary(BinaryConfig(bits=count, dim=count, **options))
    with torch.no_grad():
        quantizer.proj.weight.copy_(torch.eye(count))
        quantizer.proj.bias.zero_()
        quantizer.embed.copy_(torch.eye(count) if embed is None else torch.tensor(embed))
    return quantizer


def test_values_are_bits_times_embed():
    quantizer = binary(2, [[1.0, 2.0], [10.0, 20.0]])
    result = quantizer(lat([[3.0, -1.0], [1e-3, 5.0], [0.0, -1.0]]))
    assert result.indices.tolist() == [[[1, 0], [1, 1], [0, 0]]]
    assert result.values.tolist() == [[[1, 2], [11, 22], [0, 0]]]
    assert quantizer.vocab == (2, 2)


def test_code_loss_by_hand():
    # p = 1/2 and 3/4: (1/4 + 3/16) / 2
    loss = binary(2)(lat([[0.0, math.log(3)]])).losses["code"]
    assert loss.item() == pytest.approx((1 / 4 + 3 / 16) / 2)
    assert binary().loss_weights == {"code": 0.0}


def own(**fields) -> Draws:
    return Draws(parts={"quantizer": PartDraws(**fields)})


def test_bernoulli_bits_obey_the_temperature():
    quantizer = binary(2, temperature=0.1)
    z = lat([[0.1, -0.1]])  # sigmoid(+-1) = 0.731, 0.269
    for u, expected in ((0.26, [1, 1]), (0.28, [1, 0]), (0.72, [1, 0]), (0.74, [0, 0])):
        result = quantizer(z, own(uniform=torch.full((1, 1, 2), u)))
        assert result.indices.flatten().tolist() == expected
    chosen = quantizer(z, own(chosen=torch.tensor([[[0, 1]]])))
    assert chosen.values.tolist() == [[[0, 1]]]


def test_straight_through_of_binary_latents():
    g = torch.tensor([3.0, -2.0])
    embed = [[1.0, 2.0], [-1.0, 0.5]]
    through = g @ torch.tensor(embed).T  # what arrives at the bits
    for estimator in ("bernoulli", "sign"):
        quantizer = binary(2, embed, estimator=estimator, temperature=0.1)
        z = torch.tensor([[0.4, -3.0]], requires_grad=True)
        result = quantizer(lat(z))
        assert result.values.tolist() == [[[1, 2]]]
        (result.values * g).sum().backward()
        p = torch.sigmoid(z.detach()[0])
        slope = p * (1 - p) if estimator == "bernoulli" else torch.tensor([0.5, 0.0])
        assert torch.allclose(z.grad[0], through * slope, atol=1e-6)
        # The embedding of the bit that is on learns; the other does not.
        assert quantizer.embed.grad.tolist() == [[3, -2], [0, 0]]


def test_binary_draws():
    quantizer = binary(3)
    layout, index = quantizer.layout(((5,),)), torch.tensor([4, 7])
    draws = quantizer.draw(layout, index, Rng(0, "q"), Progress(0, 1))
    assert draws.uniform.shape == (2, 5, 3)
    again = quantizer.draw(layout, index[1:], Rng(0, "q"), Progress(0, 1))
    assert torch.equal(again.uniform, draws.uniform[1:])
    assert binary(estimator="sign").draw(layout, index, Rng(0), Progress(0, 1)) is None


def test_the_temperature_falls_by_the_draws_alone():
    quantizer = binary(2, temperature=0.1, anneal_from=1.0)
    layout, index = quantizer.layout(((300,),)), torch.arange(10)
    z = lat(torch.full((10, 300, 2), 0.1))
    for step, temperature in ((0, 1.0), (5, 0.5), (9, 0.1), (30, 0.1)):
        drawn = quantizer.draw(layout, index, Rng(0, "q"), Progress(step, 10))
        result = quantizer(z, Draws(parts={"quantizer": drawn}))
        # The same uniform numbers below the same probability: sigmoid(0.1 / temperature).
        uniform = Rng(0, "q").uniform(index, (300, 2))
        p = 1 / (1 + math.exp(-0.1 / temperature))
        clear = (uniform - p).abs() > 1e-5
        assert clear.float().mean() > 0.99
        assert torch.equal(result.indices.bool()[clear], (uniform < p)[clear])


def test_a_bit_whose_probability_rounds_to_a_half_is_off_and_so_is_its_nearest_code():
    quantizer = binary(3)
    result = quantizer(lat([[1e-9, -1e-9, 0.5]]))
    assert result.indices.tolist() == [[[0, 0, 1]]]
    assert torch.equal(quantizer.neighbours(result.queries, 1)[:, :, 0, 0], result.indices)


def test_code_vectors_begin_as_small_as_told():
    embed = Binary(BinaryConfig(bits=64, dim=256, embed_std=0.02)).embed
    assert embed.std().item() == pytest.approx(0.02, rel=0.05)
    embed = Binary(BinaryConfig(bits=50, dim=256)).embed
    assert embed.std().item() == pytest.approx(0.2, rel=0.05)


def test_bernoulli_share_of_ones():
    quantizer = binary(1, temperature=1.0)
    layout, index = quantizer.layout(((50,),)), torch.arange(80)
    draws = Draws(parts={"quantizer": quantizer.draw(layout, index, Rng(0, "q"), Progress(0, 1))})
    z = torch.full((80, 50, 1), math.log(3))  # p = 3/4; 4000 coins: +- 0.007
    assert abs(float(quantizer(Latents(z, ((50,),)), draws).indices.float().mean()) - 0.75) < 0.025


# -- neighbours ------------------------------------------------------------------------------------


def flip_sort(z: torch.Tensor, magnitude: float) -> list[int]:
    """All indices by (4 m sum of |z| of flipped bits, flips, index)."""
    count = len(z)
    clean = sum(1 << i for i in range(count) if z[i] > 0)
    scored = []
    for index in range(2**count):
        flipped = [i for i in range(count) if (index ^ clean) >> i & 1]
        cost = 0.0
        for i in flipped:
            cost += float(z[i].abs() * (4 * magnitude))
        scored.append((cost, len(flipped), index))
    return [index for *_, index in sorted(scored)]


@pytest.mark.parametrize("sphere", [False, True])
def test_lfq_neighbours_equal_a_full_sort(sphere):
    quantizer = lfq(6, sphere=sphere)
    z = torch.randn(1, 8, 6)
    queries = quantizer(lat(z)).queries
    queries[0, 0, 0] = torch.tensor([0.5, -0.25, 0.25, 0.75, -0.25, 1.0])  # ties of 1, 2, 3 flips
    queries[0, 1, 0] = 0.5
    near = quantizer.neighbours(queries, 64).view(8, 64)
    for row, anchor in zip(near, queries[0, :, 0], strict=True):
        assert row.tolist() == flip_sort(anchor, quantizer.magnitude)
    codes = quantizer.lookup(near[..., None])
    distance = (codes - queries[0]).square().sum(-1)
    assert (distance.diff(dim=-1) > -1e-5).all()


def test_fewer_flips_come_first_where_the_cost_is_equal():
    # 0.5 alone costs as much as 0.25 twice; the single flip has the higher index (bit 2).
    near = lfq(3).neighbours(torch.tensor([[[[-0.25, -0.25, -0.5]]]]), 8).flatten()
    assert near.tolist() == [0, 1, 2, 4, 3, 5, 6, 7]


def test_binary_neighbours_flip_the_least_certain_bits():
    quantizer = binary(6)
    queries = quantizer(lat(torch.randn(1, 5, 6))).queries
    near = quantizer.neighbours(queries, 64)[0, :, 0]
    index = bits.bits_to_index(near)
    for row, anchor in zip(index, queries[0, :, 0], strict=True):
        assert row.tolist() == flip_sort(anchor, 1.0)


def test_sixty_four_bits():
    quantizer = Binary(BinaryConfig(bits=64, dim=64))
    result = quantizer(lat(torch.randn(1, 4, 64)))
    near = quantizer.neighbours(result.queries, 30)[0, :, 0]
    assert near.shape == (4, 30, 64)
    assert torch.equal(near[:, 0], result.indices[0])
    logits = result.queries[0, :, 0].abs()
    flipped = (near != near[:, :1]).float()
    cost = (flipped * logits[:, None]).sum(-1)
    assert (cost.diff(dim=-1) > -1e-6).all()
    # The first neighbour flips the one least certain bit.
    assert torch.equal(flipped[:, 1].argmax(-1), logits.argmin(-1))
    assert flipped[:, 1].sum(-1).tolist() == [1] * 4


@pytest.mark.parametrize("count", [1, 2, 4, 9, 30])
def test_few_neighbours_of_many_bits_equal_those_of_all_digits(count):
    rough = torch.randint(-3, 4, (40, 12)) * 0.25  # many ties
    for z in (rough, torch.randn(40, 12)):
        everything = nearest_on_grid(bits.flip_costs(z), count, flips=True)
        assert torch.equal(bits.nearest_flips(z, count), everything)


def test_256_bits_per_token_stay_bits():
    """Values, neighbours, perturbation, bytes, use: nothing is ever one number."""
    quantizer = Binary(BinaryConfig(bits=256, dim=16))
    layout = quantizer.layout(((8,),))
    spec = layout.spec
    assert spec.vocab == (2,) * 256 and spec.bits == 2048 and spec.codebook_size == 2**256
    result = quantizer(lat(torch.randn(2, 8, 16)))
    assert result.indices.shape == (2, 8, 256) and result.indices.max() == 1
    assert torch.equal(quantizer.lookup(result.indices), result.values)
    ranks = torch.arange(16).view(2, 8, 1)
    moved = quantizer.perturb(result.queries, ranks, 15)
    assert (moved != result.indices).any(-1).flatten().tolist() == [False] + [True] * 15
    tokens = Tokens(spec, indices=result.indices.to(Tokens.dtype(spec)))
    packed = tokens.to_bytes()
    assert len(packed[0]) == 3 + 256
    assert torch.equal(Tokens.from_bytes(packed, spec).indices, tokens.indices)
    stats = CodebookStats(spec)
    stats.update(tokens.indices)
    used = stats.compute()
    assert used.usage is None and len(used.factor_entropy) == 256
    assert all(0 <= bit <= 1 for bit in used.factor_entropy)
