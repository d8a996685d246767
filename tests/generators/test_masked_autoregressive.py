"""The masked autoregressive generator: shares of masks, values, steps of sampling, guidance."""

from __future__ import annotations

import math

import pytest
import torch

import vistok.quantizers  # noqa: F401  (registers the kinds)
from vistok.config import ConfigError, validate, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.mask_share import MaskShareConfig
from vistok.generators.masked_autoregressive import (
    MaskedAutoregressive,
    MaskedAutoregressiveConfig,
    MaskedAutoregressiveSampling,
)
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 1, "heads": 2}
SCALAR = {"kind": "scalar", "dim": 3, "levels": 4}
LABELS = Condition(label=torch.tensor([0, 1, 1]))


def made(vocab=(4, 4, 4), length=6, codes=None, **options) -> MaskedAutoregressive:
    """A generator whose weights all have an influence."""
    torch.manual_seed(0)
    tree = {"encoder": SMALL, "decoder": {**SMALL, "width": 24}, "slots": 2}
    tree |= {"head": {"kind": "dimensions", "transformer": SMALL}, "condition": {"classes": 2}}
    spec = TokenSpec(blocks=((length,),), vocab=vocab, dim=len(vocab))
    model = MaskedAutoregressive(validate(MaskedAutoregressiveConfig, tree | options), spec, codes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def tokens_of(model: MaskedAutoregressive, count: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(1)
    shape = (count, model.spec.length, len(model.spec.vocab))
    return Tokens.of(model.spec, torch.randint(4, shape, generator=generator))


# -- masks of training -----------------------------------------------------------------------------


def test_shares_follow_the_truncated_normal_distribution():
    share = MaskShareConfig()
    u = torch.linspace(0, 1, 101)[:-1]
    found = share.at(u)
    assert found[0] == 0.7 and (found.diff() > 0).all() and found[-1] < 1
    # Its distribution function, by the error function, gives the numbers back.
    normal = lambda x: 0.5 * (1 + torch.erf((x - 1.0) / 0.25 / math.sqrt(2)))
    low = normal(torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close((normal(found) - low) / (0.5 - low), u.double(), atol=1e-6, rtol=0)
    assert share.count(torch.tensor([0.7, 0.71, 1.0]), 10).tolist() == [7, 8, 10]
    assert share.most_visible(256) == 256 - 180


def test_one_share_for_a_batch_or_for_each_sample():
    index, rng = torch.arange(40), Rng(0)
    one = MaskShareConfig().mask(index, rng, 50).sum(-1)
    each = MaskShareConfig(per="sample").mask(index, rng, 50).sum(-1)
    assert len(set(one.tolist())) == 1 and len(set(each.tolist())) > 5
    assert 35 <= min(*one, *each) and max(*one, *each) <= 50
    part = MaskShareConfig().mask(index[7:9], rng, 50)
    assert torch.equal(part, MaskShareConfig().mask(index, rng, 50)[7:9])


# -- the network -----------------------------------------------------------------------------------


@torch.no_grad()
def test_masked_positions_are_hidden_and_room_changes_nothing():
    model, tokens = made(), tokens_of(made())
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0]]) > 0
    front, codes = model.front(LABELS, 3), tokens.indices.long()
    features = model.trunk(model.inputs(codes, front), mask)
    others = torch.where(mask[..., None], 3 - codes, codes)
    torch.testing.assert_close(model.trunk(model.inputs(others, front), mask, room=3), features)
    moved = codes.clone()
    moved[0, 1, 0] = 3 - moved[0, 1, 0]
    other = model.trunk(model.inputs(moved, front), mask)
    assert not torch.allclose(other[0], features[0]) and torch.allclose(other[1:], features[1:])
    # Of samples that see as many positions, attention needs no mask.
    rows = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 0, 1]]) > 0
    x = model.inputs(codes, front)
    even = model.trunk(x, rows, room=2, even=True)
    torch.testing.assert_close(even, model.trunk(x, rows))


@torch.no_grad()
def test_positions_that_do_not_exist_are_not_seen():
    model, tokens = made(), tokens_of(made())
    front, mask = model.front(LABELS, 3), torch.zeros(3, 6) > 0
    seen = torch.arange(6) < torch.tensor([[4], [6], [2]])
    codes = tokens.indices.long()
    features = model.trunk(model.inputs(codes, front), mask, seen=seen)
    others = torch.where(seen[..., None], codes, 3 - codes)
    other = model.trunk(model.inputs(others, front), mask, seen=seen)
    torch.testing.assert_close(other[seen], features[seen])


@torch.no_grad()
def test_the_loss_is_the_mean_over_masked_factors():
    model, tokens = made(masks={"low": 0.3}), tokens_of(made())
    draws = model.draw(torch.arange(3), Rng(0), Progress(0, 1))
    mask, codes = draws.part("generator").mask, tokens.indices.long()
    logits = model.logits(codes, mask, model.front(LABELS, 3, draws.null))
    nats = [-part.log_softmax(-1).gather(-1, codes[..., f, None]) for f, part in enumerate(logits)]
    expected = torch.cat(nats, dim=-1)[mask].mean()
    assert model(tokens, LABELS, draws)["loss"].item() == pytest.approx(float(expected), rel=1e-5)
    hidden = Draws(null=torch.ones(3) > 0, parts={"generator": PartDraws(mask=mask)})
    free = model(tokens, Condition(), Draws(parts={"generator": PartDraws(mask=mask)}))
    assert torch.equal(model(tokens, LABELS, hidden)["loss"], free["loss"])


@torch.no_grad()
def test_texts_stand_once_in_front_of_the_class():
    condition = {"classes": 2, "text": {"dim": 5, "length": 3}}
    model = made(condition=condition)
    front = model.front(Condition(label=LABELS.label, text=torch.randn(3, 3, 5)), 3)
    assert front.shape == (3, 3 + 2, 16)
    assert torch.equal(front[:, 3], front[:, 4]) and not torch.equal(front[:, 2], front[:, 3])
    assert model.sample(LABELS, index=torch.arange(3)).check().spec == model.spec


# -- the head --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["trained", "with_step"])
@torch.no_grad()
def test_dimensions_come_in_their_order(start):
    vocab, order = (4, 3, 5), (2, 0, 1)
    head = {"kind": "dimensions", "transformer": SMALL, "order": order, "sampled_start": start}
    head = made(vocab, head=head).head
    features = torch.randn(99, 24)
    seen: list[int] = []

    def greedy(logits: torch.Tensor, f: int) -> torch.Tensor:
        seen.append(f)
        assert logits.shape == (99, vocab[f])
        return logits.argmax(-1)

    codes = head.sample(features, greedy)
    assert tuple(seen) == order
    logits = head.logits(features, codes)
    assert [part.shape[-1] for part in logits] == list(vocab)
    found = torch.stack([part.argmax(-1) for part in logits], dim=-1)
    assert torch.equal(found, codes) == (start == "trained")
    for step, f in enumerate(order):  # a dimension knows those before it alone
        moved = codes.clone()
        moved[:, f] = (moved[:, f] + 1) % vocab[f]
        changed = [
            not torch.allclose(a, b)
            for a, b in zip(head.logits(features, moved), logits, strict=True)
        ]
        assert [changed[g] for g in order] == [s > step for s in range(3)]


def test_wrong_heads_are_one_line(fails):
    with fails(ConfigError, r"order=\[0, 2\]: expected each of the numbers 0..1 once"):
        validate(MaskedAutoregressiveConfig, {"head": {"kind": "dimensions", "order": [0, 2]}})
    with fails(InputError, "head.order: 2 numbers for tokens of 3 dimensions; expected 3"):
        made(head={"kind": "dimensions", "transformer": SMALL, "order": [1, 0]})
    with fails(ConfigError, "transformer.modulation=4: the context modulates"):
        modulated = {**SMALL, "modulation": 4}
        validate(
            MaskedAutoregressiveConfig, {"head": {"kind": "dimensions", "transformer": modulated}}
        )
    with fails(ConfigError, "encoder.modulation=4: the condition stands in front"):
        validate(MaskedAutoregressiveConfig, {"encoder": {**SMALL, "modulation": 4}})


# -- values ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_values_are_those_of_the_codes():
    quantizer = build(validate_part("quantizer", SCALAR | {"range": 2}))
    model = made(embed="values", codes=quantizer)
    codes = tokens_of(model).indices.long()
    assert torch.equal(model.embed.values(codes), quantizer.lookup(codes))
    own = made(embed="values", quantizer=SCALAR | {"range": 2})
    assert not own.config.wants_codes and torch.equal(own.embed.table, model.embed.table)
    levels = {"kind": "fsq", "levels": [4, 3, 5]}
    ragged = build(validate_part("quantizer", levels))
    model = made((4, 3, 5), embed="values", codes=ragged)
    codes = torch.tensor([[[0, 2, 4], [3, 0, 1]]])
    assert torch.equal(model.embed.values(codes), ragged.lookup(codes))


def test_codes_without_a_value_per_factor_are_refused(fails):
    pairs = {"kind": "product", "quantizer": {"kind": "vq", "codebook_size": 4, "dim": 2}}
    product = build(validate_part("quantizer", pairs | {"branches": 3}))
    with fails(InputError, "embed=values: the quantizer's values, of width 6, are not one number"):
        made(embed="values", codes=product)
    with fails(InputError, "embed=values needs the values of the tokenizer's codes"):
        made(embed="values")
    with fails(InputError, r"embed=values with regroup=\[8, 8\]"):
        made(embed="values", regroup=[8, 8], quantizer=SCALAR)
    with fails(ConfigError, "quantizer={kind: scalar} with embed=learned: nothing reads its"):
        made(quantizer=SCALAR)


# -- sampling --------------------------------------------------------------------------------------


def test_the_schedule_rounds_as_the_original_does():
    counts = lambda steps: MaskedAutoregressiveSampling(steps=steps).masked_after
    assert [counts(4)(s, 16) for s in range(4)] == [14, 11, 6, 0]
    assert counts(39)(25, 16) == 7  # cos(60 degrees) a rounding below one half
    linear = MaskedAutoregressiveSampling(steps=4, schedule="linear").masked_after
    assert [linear(s, 16) for s in range(4)] == [12, 8, 4, 0]


@pytest.mark.parametrize("steps", [1, 3, 6, 20])
def test_every_position_is_predicted_once_in_its_order(steps, monkeypatch):
    model = made()
    rows: list[int] = []
    sample = model.head.sample
    monkeypatch.setattr(
        model.head, "sample", lambda x, pick: (rows.append(len(x)), sample(x, pick))[1]
    )
    order = torch.stack([torch.randperm(6) for _ in range(3)])
    u = torch.rand(3, 6, 3)
    settings = model.settings({"steps": steps})
    with torch.no_grad():
        tokens = model.unmasked(LABELS, order, u, settings)
    assert sum(rows) == 18 and len(rows) == min(steps, 6)
    if steps < 6:
        return
    # One by one: each is what the network says of those before it in the order.
    codes, mask = tokens.indices.long(), torch.ones(3, 6) > 0
    for place in order.T:
        with torch.no_grad():
            logits = model.logits(codes, mask, model.front(LABELS, 3))
        at = (torch.arange(3), place)
        for f, part in enumerate(logits):
            edges = part[at].double().softmax(-1).cumsum(-1)
            found = torch.searchsorted(edges, u[at][:, f, None].double()).clamp(max=3)[:, 0]
            assert torch.equal(found, codes[at][:, f])
        mask[at] = False


@torch.no_grad()
def test_guidance_grows_with_the_positions_that_are_known(monkeypatch):
    model = made(length=8)
    scales: list[list[float]] = []
    features = model._features
    monkeypatch.setattr(model, "_features", lambda *a: (scales.append(a[4]), features(*a))[1])
    settings = {"steps": 4, "guidance": 3.0, "guidance_schedule": "linear"}
    known = tokens_of(model)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[1, :4] = True
    condition = Condition(label=LABELS.label, known=known, known_mask=mask)
    model.sample(condition, index=torch.arange(3), sampling=settings)
    left = [[7, 5, 3, 1], [3, 2, 1, 1], [7, 5, 3, 1]]
    expected = [[1 + 2 * (8 - n) / 8 for n in row] for row in left]
    assert torch.tensor(scales).T.tolist() == torch.tensor(expected).tolist()


@pytest.mark.slow
def test_training_is_one_graph():
    model, tokens = made(), tokens_of(made())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for step in range(2):  # shares of masked positions differ, shapes do not
        draws = model.draw(torch.arange(3), Rng(0, "generator", step), Progress(step, 2))
        found = compiled(tokens, LABELS, draws)["loss"]
        assert found.item() == pytest.approx(model(tokens, LABELS, draws)["loss"].item(), rel=1e-5)
