"""The random-order generator: orders, annealing, targets, likelihood, cache, guidance."""

import itertools
import math

import pytest
import torch

from tests.support.autoregressive import HEADS, LABELS, tokens_of
from vistok.config import validate
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.guidance import GuidanceConfig
from vistok.generators.random_order import RandomnessConfig, RandomOrder, RandomOrderConfig
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 2, "heads": 2, "qk_norm": True, "qk_norm_kind": "layernorm"}


def make(vocab=(6,), blocks=((4,),), prefix="none", **options) -> RandomOrder:
    """A generator whose weights all have an influence."""
    torch.manual_seed(2)
    data = {"transformer": SMALL, "condition": {"classes": 2}, **options}
    model = RandomOrder(
        validate(RandomOrderConfig, data), TokenSpec(blocks=blocks, vocab=vocab, prefix=prefix)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def sample(model: RandomOrder, label=LABELS, seed: int = 0, **changes) -> torch.Tensor:
    index = torch.arange(len(label))
    condition = label if isinstance(label, Condition) else Condition(label=label)
    return model.sample(condition, index=index, seed=seed, sampling=changes).indices


def orders(*rows) -> Draws:
    return Draws(parts={"generator": PartDraws(order=torch.tensor(rows))})


def nats(model: RandomOrder, tokens: Tokens, *rows) -> torch.Tensor:
    """[B, L] of tokens without a class, in given orders, one or one per sample."""
    rows = rows * len(tokens) if len(rows) == 1 else rows
    with torch.no_grad():
        return model.nats(tokens, Condition(), orders(*rows))


# -- orders ----------------------------------------------------------------------------------------


def test_raster_is_the_order_without_one():
    model = make()
    tokens = tokens_of(model)
    raster = nats(model, tokens, [0, 1, 2, 3])
    torch.testing.assert_close(raster, model.nats(tokens, Condition()), atol=1e-6, rtol=0)
    assert (nats(model, tokens, [2, 0, 3, 1]) - raster).abs().min() > 1e-4


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_of_all_sequences_add_up_to_one_in_any_order(head):
    vocab = {"joint": (4,), "bernoulli": (2, 2)}.get(head, (2, 3))
    model = make(vocab, blocks=((2,),), head=head)
    digits = itertools.product(*(range(v) for _ in range(2) for v in vocab))
    indices = torch.tensor(list(digits)).view(-1, 2, len(vocab))
    for order in ([0, 1], [1, 0]):
        found = nats(model, Tokens.of(model.spec, indices), order).double().sum(-1)
        assert found.neg().exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert found.std() > 0.1


def test_a_position_sees_only_what_is_before_it_in_its_order():
    model = make()
    tokens = tokens_of(model)
    other = Tokens(model.spec, tokens.indices.clone())
    other.indices[:, 0] = (other.indices[:, 0] + 1) % 6
    order = [3, 1, 0, 2]
    a, b = nats(model, tokens, order), nats(model, other, order)
    assert torch.equal(a[:, [3, 1]], b[:, [3, 1]])
    assert (a - b)[:, [0, 2]].abs().min() > 1e-4


def test_a_slot_knows_which_position_it_predicts():
    """Two orders with the same beginning: what comes next is told by the target alone."""
    model = make()
    tokens = tokens_of(model)
    a, b = (nats(model, tokens, order) for order in ([1, 0, 2, 3], [1, 2, 0, 3]))
    assert torch.equal(a[:, 1], b[:, 1])
    with torch.no_grad():
        model.target_positions.zero_()
    same = tokens.indices.clone()
    same[:, 2] = same[:, 0]  # without targets the two predictions are one
    same = Tokens(model.spec, same)
    a, b = (nats(model, same, order) for order in ([1, 0, 2, 3], [1, 2, 0, 3]))
    torch.testing.assert_close(a[:, 0], b[:, 2], atol=1e-6, rtol=0)


def test_cut_tokens_come_last_and_count_nothing():
    model = make(prefix="token")
    tokens = tokens_of(model).prefix(2)
    other = Tokens(model.spec, tokens.indices.clone(), keep=tokens.keep)
    other.indices[:, 3] = 5
    a, b = (nats(model, one, [3, 1, 2, 0]) for one in (tokens, other))
    assert torch.equal(a, b) and not a[:, 2:].any() and a[:, :2].gt(0).all()
    torch.testing.assert_close(a, nats(model, tokens, [1, 0, 2, 3]), atol=1e-6, rtol=0)


# -- annealing -------------------------------------------------------------------------------------


def test_annealing_by_hand():
    default = RandomnessConfig()
    share = lambda step, config=default: config.at(Progress(step, 250_000))
    # RAR: random until step 125,000, then linear to raster at 187,500.
    assert [share(step) for step in (0, 124_999, 125_000)] == [1, 1, 1]
    assert share(156_250) == pytest.approx(0.5) and share(175_000) == pytest.approx(0.2)
    assert [share(step) for step in (187_500, 249_999)] == [0, 0]
    always, never = RandomnessConfig(start=1, end=1), RandomnessConfig(start=0, end=0)
    assert {share(step, always) for step in (0, 249_999)} == {1.0}
    assert {share(step, never) for step in (0, 249_999)} == {0.0}


def test_orders_are_keyed_and_have_their_share():
    model = make(randomness={"start": 0.0, "end": 1.0}, blocks=((16,),))
    draw = lambda index, step: model.draw(index, Rng(0, "generator", step), Progress(step, 100))
    index = torch.arange(2000)
    for step in (0, 70, 99):
        order = draw(index, step).part("generator").order
        assert torch.equal(order.sort(dim=1).values, torch.arange(16).expand(2000, -1))
        permuted = (order != torch.arange(16)).any(1).float().mean()
        assert float(permuted) == pytest.approx(1 - step / 100, abs=0.035)
    some = torch.tensor([7, 1999])
    assert torch.equal(draw(some, 70).part("generator").order, order_of(draw(index, 70))[some])
    first = order_of(draw(index, 0))[:, 0]  # every position comes first as often as any other
    assert torch.bincount(first, minlength=16).sub(125).abs().max() < 50


def order_of(draws: Draws) -> torch.Tensor:
    return draws.part("generator").order


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"randomness": {"start": 0.8, "end": 0.2}}, "start=0.8 and end=0.2; expected start <="),
        ({"randomness": {"end": 1.5}}, "randomness.end: got 1.5"),
        ({"transformer": {**SMALL, "modulation": 8}}, "transformer.modulation=8: .*leave it out"),
    ],
)
def test_wrong_configs(fails, changes, words):
    with fails(ValueError, words):
        validate(RandomOrderConfig, changes)


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [((4,),), ((2, 3),), ((1, 1), (2, 2))], ids=str)
def test_hidden_states_of_the_cache_are_those_of_the_whole_sequence(blocks):
    model = make(blocks=blocks)
    tokens, condition = tokens_of(model), Condition(label=torch.tensor([0, 1, 1, 0, -1]))
    with torch.no_grad():
        start = model.start(condition, 5)
        x = torch.cat([start, model.embed(tokens.indices.long())], 1)
        whole = model.run(x, 0, start)
        caches = model.transformer.new_caches(5, x.shape[1], x)
        parts = [model.run(x[:, :2], 0, start, caches)]
        parts += [model.run(x[:, i : i + 1], i, start, caches) for i in range(2, x.shape[1])]
    assert x.shape[1] == model.spec.length + 2
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_cache_changes_no_sample(head, guidance):
    model = make(HEADS[head], head=head)
    run = lambda cache: sample(model, seed=4, guidance=guidance, cache=cache)
    assert torch.equal(run(True), run(False)) and len(run(True).unique()) > 1


def test_samples_follow_the_model():
    # Frequencies of 3000 samples against the likelihood of each pair in raster order.
    model = make((3,), blocks=((2,),))
    label = torch.ones(3000, dtype=torch.long)
    seen = sample(model, label)[..., 0].long()
    counts = torch.bincount(seen[:, 0] * 3 + seen[:, 1], minlength=9).double()
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2)))[..., None]
    with torch.no_grad():
        found = model.nats(Tokens.of(model.spec, pairs), Condition(label=label[:9]))
    expected = found.double().sum(-1).neg().exp() * 3000
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1  # 8 degrees, p = 0.001


def test_guidance_by_the_cosine_schedule():
    scale = lambda done, power: GuidanceConfig(
        guidance=16.0, guidance_schedule="cosine", guidance_power=power
    ).scale_at(done)
    expected = 1 + 15 * (1 - math.cos(math.pi * 0.25**2.75)) / 2
    assert scale(0.0, 2.75) == 1.0 and scale(0.25, 2.75) == pytest.approx(expected)
    # x**0 = 1 at every step, the first too: constant guidance.
    assert [scale(done, 0) for done in (0.0, 0.1, 0.9)] == [16.0] * 3
    model = make()
    cosine = {"guidance": 4.0, "guidance_schedule": "cosine"}
    constant = sample(model, guidance=4.0)
    assert torch.equal(sample(model, **cosine, guidance_power=0), constant)
    assert not torch.equal(sample(model, **cosine, guidance_power=2.75), constant)
    none = sample(model)
    assert torch.equal(sample(model, guidance=1.0, guidance_schedule="cosine"), none)
    assert not torch.equal(constant, none)


def test_text_and_class_condition_a_random_order():
    condition = {"classes": 2, "text": {"dim": 5, "length": 3}}
    model = make(condition=condition)
    generator = torch.Generator().manual_seed(1)
    given = Condition(label=LABELS, text=torch.randn(6, 3, 5, generator=generator))
    tokens = tokens_of(model, 6)
    found = model.nats(tokens, given, orders(*[[2, 0, 3, 1]] * 6))
    for changed in (Condition(label=1 - LABELS, text=given.text), Condition(label=LABELS)):
        other = model.nats(tokens, changed, orders(*[[2, 0, 3, 1]] * 6))
        assert (other - found).abs().amax(1).min() > 1e-4
    index = torch.arange(6)
    cached, whole = (
        model.sample(given, index=index, sampling={"guidance": 2.0, "cache": cache}).indices
        for cache in (True, False)
    )
    assert torch.equal(cached, whole)


def test_large_vocabularies_are_regrouped():
    model = make((2**18,), regroup=(64, 4096))
    tokens = tokens_of(model)
    assert torch.equal(
        nats(model, tokens, [2, 0, 3, 1]), nats(model, tokens.regroup((64, 4096)), [2, 0, 3, 1])
    )
    assert model.sample(index=torch.arange(3)).check().spec == model.spec
