"""Ways to drop tails: each length, and each position, as often as the formula says."""

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.nested_dropout import NestedDropoutConfig
from vistok.regularizers.tail_token_drop import TailTokenDropConfig
from vistok.tokens import TokenSpec

COUNT = 4000


def spec(length: int = 16, **rest) -> TokenSpec:
    return TokenSpec(blocks=((length,),), vocab=(64,), **{"prefix": "token", **rest})


def drawn(config, shape: TokenSpec, count: int = COUNT, step: int = 0):
    rng = Rng(0, config.kind, step)
    return build(config).draw(shape, torch.arange(count), rng, Progress(step, 10))


def near(seen: torch.Tensor, shares, count: int = COUNT) -> None:
    """Within 4 standard deviations of a binomial, and never where the share is 0 or 1."""
    shares = torch.as_tensor(shares, dtype=torch.float64)
    room = 4 * (shares * (1 - shares) / count).sqrt()
    off = (seen.double() / count - shares).abs()
    assert (off <= room + 1e-12).all(), (seen / count, shares)


def geometric(ratio: float, total: int) -> list[float]:
    shares = [ratio**k for k in range(1, total + 1)]
    return [share / sum(shares) for share in shares]


FORMULAS = [
    ({"lengths": "uniform"}, 7, [1 / 7] * 7),
    ({"lengths": "pow2"}, 8, [0.25, 0.25, 0, 0.25, 0, 0, 0, 0.25]),
    ({"lengths": "uniform_pow2"}, 6, [1 / 6, 1 / 6, 0, 2 / 6, 0, 2 / 6]),
    ({"lengths": "doubling"}, 6, [0.25, 0.25, 0, 0.25, 0, 0.25]),
    ({"lengths": "doubling"}, 8, [0.25, 0.25, 0, 0.25, 0, 0, 0, 0.25]),
    ({"lengths": "doubling"}, 1, [1.0]),
    ({"lengths": "geometric", "ratio": 0.7}, 12, geometric(0.7, 12)),
    ({"lengths": "geometric", "ratio": 1.3}, 5, geometric(1.3, 5)),
    ({"lengths": "geometric", "ratio": 0.5}, 1, [1.0]),
]


@pytest.mark.parametrize(("options", "total", "shares"), FORMULAS)
@pytest.mark.parametrize("kind", [NestedDropoutConfig, TailTokenDropConfig])
def test_lengths_follow_the_formula(kind, options, total, shares):
    keep = drawn(kind(per="sample", **options), spec(total)).keep
    assert keep.dtype == torch.int64 and keep.shape == (COUNT,)
    near(torch.bincount(keep, minlength=total + 1)[1:], shares)


@pytest.mark.parametrize(("options", "total", "shares"), FORMULAS)
def test_soft_tails_keep_each_position_as_often_as_hard_ones(options, total, shares):
    config = TailTokenDropConfig(per="sample", tail="soft", **options)
    draws = drawn(config, spec(total))
    assert draws.keep is None and draws.present.shape == (COUNT, total)
    reached = torch.tensor(shares, dtype=torch.float64).flip(0).cumsum(0).flip(0).clamp(max=1)
    near(draws.present.sum(0), reached)
    assert draws.present[:, 0].all()  # so something is always shown
    if total > 4:
        pairs = (draws.present[:, 1] & draws.present[:, 3]).sum()
        near(pairs, reached[1] * reached[3])  # independent: no prefix


@pytest.mark.parametrize("mean", [1.5, 4.0, 6.5, 11.0, 11.9])
def test_a_geometric_mean_is_that_of_the_draws(mean):
    config = NestedDropoutConfig(lengths="geometric", mean=mean)
    shares = config.shares(12)
    places = torch.arange(1.0, 13, dtype=torch.float64)
    assert float((shares * places).sum()) == pytest.approx(mean, abs=1e-9)
    keep = drawn(config, spec(12)).keep.double()
    room = 4 * float((shares * (places - mean) ** 2).sum() / COUNT) ** 0.5
    assert abs(float(keep.mean()) - mean) <= room
    ratios = shares[1:] / shares[:-1]
    assert torch.allclose(ratios, ratios[0].expand_as(ratios))


@pytest.mark.parametrize("tail", ["hard", "soft"])
def test_draws_are_keyed(tail):
    one = NestedDropoutConfig(lengths="uniform", tail=tail)
    field = "keep" if tail == "hard" else "present"
    of = lambda index, config=one, step=3: getattr(
        build(config).draw(spec(), index, Rng(0, "n", step), Progress(step, 9)), field
    )
    whole, picked = of(torch.arange(50)), torch.tensor([49, 3, 20])
    assert torch.equal(of(picked), whole[picked])
    assert not torch.equal(of(torch.arange(50), step=4), whole)
    shared = NestedDropoutConfig(lengths="uniform", tail=tail, per="batch")
    rows = of(torch.arange(50), shared)
    assert (rows == rows[:1]).all() and not torch.equal(of(picked, shared, 4), rows[:3])


def test_a_share_keeps_everything():
    soft = NestedDropoutConfig(lengths="geometric", ratio=0.2, tail="soft", full=0.3)
    present = drawn(soft, spec(9)).present
    near(present.all(1).sum(), 0.3)  # by chance it is once in a million
    hard = soft.model_copy(update={"tail": "hard"})
    assert set(drawn(hard.model_copy(update={"full": 1.0}), spec(9)).keep.tolist()) == {9}


def test_inside_each_block():
    video = TokenSpec(blocks=((4,), (2,)), vocab=(8,), prefix="per_block")
    config = TailTokenDropConfig(per="sample", tail="soft")
    near(drawn(config, video).present.sum(0), [1, 3 / 4, 2 / 4, 1 / 4, 1, 3 / 4])


def test_lengths_of_old_kinds_stay():
    """The numbers of earlier versions, sample by sample."""
    rng, index = Rng(3, "nested_dropout", 7), torch.arange(8)
    u = rng.uniform(index, (2,))
    for lengths, of in (
        ("uniform", lambda x: 1 + int(x * 12)),
        ("uniform_pow2", lambda x: min(12, 1 << int(x * 12).bit_length())),
    ):
        part = build(NestedDropoutConfig(lengths=lengths, full=0.25))
        keep = part.draw(spec(12), index, rng, Progress(7, 9)).keep.tolist()
        pairs = zip(u[:, 0].double().tolist(), u[:, 1].tolist(), strict=True)
        assert keep == [12 if full < 0.25 else of(x) for x, full in pairs]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lengths": "geometric"}, "takes ratio .* or mean"),
        ({"lengths": "geometric", "ratio": 0.5, "mean": 3}, "one of both"),
        ({"lengths": "uniform", "ratio": 0.5}, "ratio is a key of lengths=geometric"),
        ({"lengths": "geometric", "mean": 1}, "mean"),
        ({"tail": "softly"}, "softly"),
    ],
)
def test_mistakes_are_one_line(fails, options, word):
    with fails(ConfigError, word):
        validate(NestedDropoutConfig, options)


def test_what_does_not_fit_the_sequence(make_tokenizer, tree, fails):
    mean = {"kind": "nested_dropout", "lengths": "geometric", "mean": 9}
    with fails(ConfigError, "'nested_dropout': mean=9 of lengths 1..4"):
        make_tokenizer(regularizers=[mean])
    soft = {"kind": "tail_token_drop", "tail": "soft"}
    with fails(ConfigError, "tail=soft hides single tokens"):
        make_tokenizer("scales", missing="refuse", regularizers=[soft])
    with fails(ConfigError, "both fill 'keep'"):
        make_tokenizer(regularizers=[mean | {"mean": 3}, {"kind": "tail_token_drop"}])


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_a_decoder_hides_what_a_soft_tail_drops(make_tokenizer, missing):
    soft = {"kind": "tail_token_drop", "tail": "soft", "per": "sample"}
    tokenizer = make_tokenizer(missing=missing, regularizers=[soft])
    batch = Batch(index=torch.arange(6), pixels=torch.rand(6, 3, 8, 8))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 10))
    hidden = ~draws.present
    assert hidden.any() and (draws.present[:, 1:] & hidden[:, :-1]).any()  # not a prefix
    before = tokenizer(batch, draws).pixels
    with torch.no_grad():  # values that are hidden have no influence
        quantized = tokenizer.quantize(tokenizer.latents(batch.pixels))
        moved = quantized.values + 5 * hidden[..., None]
        same = tokenizer.reconstruct(moved, draws.present).estimate
    assert torch.equal(tokenizer.output_space.inverse(same), before)


def test_latents_that_are_not_stored_stay_hidden(make_tokenizer, fails):
    soft = {"kind": "nested_dropout", "lengths": "uniform", "tail": "soft", "full": 1.0}
    tokenizer = make_tokenizer(regularizers=[soft], latents={"count": 6, "stored": 4})
    assert tokenizer.spec().length == 4 and tokenizer.layout.count == 6
    batch = Batch(index=torch.arange(3), pixels=torch.rand(3, 3, 8, 8))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 10))
    shown = tokenizer.present(draws, 3, torch.device("cpu"))
    assert shown.tolist() == [[True] * 4 + [False] * 2] * 3
    # So training at full length shows what is stored, as evaluation does.
    assert torch.equal(tokenizer(batch, draws).pixels, tokenizer(batch).pixels)
    padded = {"kind": "redundant_padding", "padding": 2, "floor": 1, "per": "sample"}
    trained = make_tokenizer(regularizers=[padded], latents={"count": 6, "stored": 4})
    keep = trained.draw(torch.arange(200), 0, Progress(0, 10)).keep
    assert set(keep.tolist()) == set(range(1, 7))
    for wrong in ({"count": 6, "stored": 7}, {"count": None, "stored": 2}):
        with fails(ConfigError, "stored=. *: expected at most count"):
            make_tokenizer(latents=wrong)
