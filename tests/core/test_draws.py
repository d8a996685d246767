"""Keyed random numbers, draws, schedules."""

import math

import pytest
import torch

from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Batch, Condition
from vistok.core.rng import Rng
from vistok.core.schedules import dropped, ramp, robustok_ratio, warmup_cosine

KNOWN = [0.5417560935020447, 0.460979163646698]


def test_numbers_belong_to_samples_not_to_batches():
    rng = Rng(3, "part", 7)
    whole = rng.uniform(torch.arange(10), (4,))
    assert torch.equal(
        torch.cat([rng.uniform(torch.arange(i, i + 5), (4,)) for i in (0, 5)]), whole
    )
    shuffled = torch.tensor([9, 2, 2, 0])
    assert torch.equal(rng.uniform(shuffled, (4,)), whole[shuffled])
    # A call starts again at the sample's first number: more numbers, same beginning.
    assert torch.equal(rng.uniform(torch.arange(10), (6,))[:, :4], whole)
    assert torch.equal(rng.normal(shuffled), rng.normal(torch.arange(10))[shuffled])


@pytest.mark.parametrize(
    "other",
    [Rng(4, "part", 7), Rng(3, "parts", 7), Rng(3, "part", 8), Rng(3, "part", 7).child("a")],
)
def test_another_key_gives_other_numbers(other):
    index = torch.arange(50)
    assert not (Rng(3, "part", 7).uniform(index) == other.uniform(index)).any()


def test_keys_are_stable_between_releases():
    # NumPy's Philox4x64-10 with key (seed, blake2b-64 of the part), counter (0, 0, step, sample).
    assert Rng(0, "nested_dropout", 1).uniform(torch.tensor([2]), (2,))[0].tolist() == KNOWN


def test_per_batch_numbers_are_shared():
    numbers = Rng(0, "p").uniform(torch.tensor([5, 6, 7]), (2,), per="batch")
    assert (numbers == numbers[0]).all()
    assert not torch.equal(numbers[0], Rng(0, "p", 1).uniform(torch.tensor([5]), (2,), "batch")[0])


def test_uniform_and_normal_look_like_themselves():
    index = torch.arange(500)
    u = Rng(0, "u").uniform(index, (40,))
    assert u.dtype == torch.float32 and float(u.min()) >= 0 and float(u.max()) < 1
    counts = torch.histc(u, 20, 0, 1)  # 1000 expected in each, standard deviation 31
    assert float((counts - 1000).square().sum() / 1000) < 45  # chi-square, 19 degrees: p = 0.001
    # Neighbouring samples are independent: correlation of 20,000 pairs is 0 +- 0.007.
    assert abs(float(torch.corrcoef(torch.stack([u[:-1].flatten(), u[1:].flatten()]))[0, 1])) < 0.03
    z = Rng(0, "n").normal(index, (40,))
    assert abs(float(z.mean())) < 0.03 and abs(float(z.std()) - 1) < 0.03


def test_integers_cover_their_range():
    numbers = Rng(0, "i").integers(torch.arange(2000), 5)
    assert numbers.dtype == torch.int64
    counts = torch.bincount(numbers, minlength=5)
    assert len(counts) == 5 and float((counts - 400).square().sum() / 400) < 18.5  # 4 degrees


def test_huge_and_empty_keys():
    assert Rng(2**63 + 5, "x", 2**40).uniform(torch.tensor([2**40])).shape == (1,)
    assert Rng(0, "x").uniform(torch.arange(0), (3,)).shape == (0, 3)


def test_draws_join_and_rows():
    a = Draws(keep=torch.tensor([1, 2, 3]))
    b = Draws(ranks=torch.arange(12).view(3, 4, 1))
    both = a.join(b)
    assert both.keep is a.keep and both.ranks is b.ranks and both.null is None
    part = both.select(slice(1, 3))
    assert part.keep.tolist() == [2, 3] and part.ranks[0, 0, 0] == 4
    assert both.select([2, 0]).keep.tolist() == [3, 1]
    moved = both.to("meta")
    assert moved.keep.device.type == moved.ranks.device.type == "meta" and moved.levels is None


def test_two_parts_may_both_want_noise(fails):
    """Outcomes of a part stand below its name: several may want the same field."""
    one = Draws(parts={"quantizer": PartDraws(noise=torch.zeros(3, 2))})
    two = Draws(parts={"decoder": PartDraws(noise=torch.ones(3, 4), time=torch.rand(3))})
    both = one.join(two)
    assert both.part("quantizer").noise.shape == (3, 2) and both.part("decoder").noise.shape == (
        3,
        4,
    )
    assert both.part("loss.flow") == PartDraws()
    part = both.select(slice(1, 2))
    assert part.part("decoder").time.shape == (1,) and part.part("quantizer").time is None
    assert both.to("meta").part("decoder").noise.device.type == "meta"
    with fails(ValueError, "'decoder'", "flow is the second"):
        both.join(two, "flow")


def test_every_record_selects_samples(make_tokenizer):
    """One verb for all records; fields without a batch axis stay."""
    tokenizer = make_tokenizer()
    batch = Batch(torch.arange(3), torch.rand(3, 3, 8, 8), text=("a", "b", "c"))
    tokens = tokenizer.encode(batch.pixels)
    condition = Condition(label=torch.arange(3), prefix=tokens, sides=(8, 8))
    for rows, expected in ((slice(1, 3), [1, 2]), ([2, 0], [2, 0]), (torch.tensor([1]), [1])):
        assert batch.select(rows).index.tolist() == expected
        assert batch.select(rows).text == tuple("abc"[i] for i in expected)
        picked = condition.select(rows)
        assert picked.label.tolist() == expected and picked.sides == (8, 8)
        assert torch.equal(picked.prefix.indices, tokens.indices[expected])
    result = tokenizer(batch)
    part = result.select([1])
    assert torch.equal(part.pixels, result.pixels[1:2])
    assert torch.equal(part.decoded.features["grid"], result.decoded.features["grid"][1:2])
    assert part.quantized.losses == result.quantized.losses and part.latents.grids == ((4,),)


def test_two_parts_that_fill_one_field(fails):
    keep = Draws(keep=torch.tensor([1]))
    with fails(ValueError, "'keep'", "tail_token_drop is the second"):
        keep.join(keep, "tail_token_drop")


def test_ramp():
    assert [ramp(step, 3, 4) for step in range(9)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [ramp(step, 2, 0) for step in range(4)] == [0, 0, 1, 1]


def test_warmup_cosine():
    # 3 warm-up steps, then half a cosine over 8 - 3 steps to 0.2.
    values = [warmup_cosine(step, 8, 3, 0.2) for step in range(10)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[5] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 2 / 5)))
    assert values[8] == values[9] == pytest.approx(0.2)


def test_rates_drop_behind_shares_of_the_steps():
    values = [dropped(step, 12, (0.5, 2 / 3), 0.2) for step in (0, 5, 6, 7, 8, 12)]
    assert values == [1, 1, 0.2, 0.2, pytest.approx(0.04), pytest.approx(0.04)]
    assert dropped(12, 12, (), 0.2) == 1


def test_robustok_annealing_is_the_published_formula():
    ratios = [robustok_ratio(epoch, 40, 120, 0.2) for epoch in (0, 39, 40, 80, 120, 121)]
    # 1 - (e - 40) / 80 * 0.2: it ends at 0.8 and then jumps to 0.2.
    assert ratios == [1, 1, 1, pytest.approx(0.9), pytest.approx(0.8), 0.2]
    assert [robustok_ratio(epoch, 4, 4, 0.5) for epoch in (3, 4, 5)] == [1, 0.5, 0.5]
