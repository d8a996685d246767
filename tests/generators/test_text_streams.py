"""Masked generators with a stream of text: no condition is the empty text, scores, classes."""

import pytest
import torch

from vistok.config import validate
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.conditioning import ConditionConfig, ConditionTokens
from vistok.generators.masked import Masked, MaskedConfig
from vistok.generators.scores import ScoreConfig, ScoreWaves
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((4,),), vocab=(16,), prefix="token")
READS = {"classes": 2, "text": {"dim": 6, "length": 3}, "pooled": 5, "score": {"channels": 7}}
INDEX = torch.arange(3)


def made(**condition) -> Masked:
    tree = {"kind": "masked", "trunk": {"kind": "mmdit", "width": 16, "depth": 2, "heads": 2}}
    tree |= {"condition": READS | condition, "sampling": {"steps": 2}}
    model = Masked(validate(MaskedConfig, tree), SPEC).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def given(score: float = 5.0) -> Condition:
    generator = torch.Generator().manual_seed(0)
    text, pooled = (torch.randn(3, *shape, generator=generator) for shape in ((3, 6), (5,)))
    label = torch.tensor([0, 1, -1])
    return Condition(label=label, text=text, pooled=pooled, score=torch.full((3,), score))


def empty() -> Condition:
    features = given().select([0])
    mask = torch.ones(1, 3, dtype=torch.bool)
    return Condition(text=-features.text, text_mask=mask, pooled=-features.pooled)


@torch.no_grad()
def test_no_condition_is_the_empty_text():
    model, condition = made(), given(6.5)
    model.fill_empty(empty())
    codes, mask = torch.zeros(3, 4, 1, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool)
    logits = lambda *args: model.logits(codes, mask, *args)[0]
    free = logits(Condition())  # the score of samples without one is 6.5
    null = torch.tensor([True, False, True])
    found = logits(condition, null)
    assert torch.equal(found[null], free[null])
    assert torch.equal(found[1], logits(condition)[1])
    assert not torch.allclose(logits(condition), free, atol=0.01)
    assert not torch.allclose(logits(given(1.0)), logits(condition), atol=0.01)  # the score is read
    rows = empty().select([0, 0, 0])
    same = Condition(label=torch.full((3,), -1), text=rows.text, pooled=rows.pooled)
    assert torch.equal(logits(same), free)


def test_guidance_one_is_none_and_batches_change_nothing():
    model, condition = made(), given()
    plain = model.sample(condition, index=INDEX, sampling={"guidance": 1.0})
    with pytest.raises(InputError, match="empty text"):
        model.sample(condition, index=INDEX, sampling={"guidance": 2.0})
    model.fill_empty(empty())
    guided = {"guidance": 1.0, "guidance_start": 1.0, "guidance_schedule": "linear"}
    assert torch.equal(plain.indices, model.sample(condition, index=INDEX, sampling=guided).indices)
    whole = model.sample(condition, index=INDEX, sampling={"guidance": 3.0})
    parts = [
        model.sample(condition.select(rows), index=INDEX[rows], sampling={"guidance": 3.0}).indices
        for rows in ([0], [1, 2])
    ]
    assert torch.equal(whole.indices, torch.cat(parts))


@torch.no_grad()
def test_a_prefix_sees_nothing_behind_it():
    model, condition = made(), given()
    codes = torch.arange(12).view(3, 4, 1)
    others = torch.cat([codes[:, :2], 15 - codes[:, 2:]], dim=1)
    there = torch.tensor([True, True, False, False]).expand(3, -1)
    mask = torch.tensor([True, False, False, False]).expand(3, -1)
    one, two = (model.logits(c, mask, condition, None, there)[0][:, :2] for c in (codes, others))
    assert torch.equal(one, two)
    whole = model.logits(others, mask, condition)[0][:, :2]
    assert not torch.allclose(one, whole, atol=0.01)


def test_sinusoids_of_scores():
    waves = ScoreWaves(ScoreConfig(channels=5, scale=100.0, max_period=1000.0))
    found = waves(torch.tensor([0.0, 0.02]))
    angles = 2 * torch.tensor([1.0, 1000.0**-0.5])
    expected = torch.cat([angles.sin(), angles.cos(), torch.zeros(1)])
    torch.testing.assert_close(found, torch.stack([torch.tensor([0.0, 0, 1, 1, 0]), expected]))


def test_what_is_not_read_is_one_line(fails):
    with fails(InputError, "trunk=mmdit reads a text and its pooled features"):
        made(pooled=None)
    with fails(InputError, "trunk=mmdit reads dim and length"):
        made(text={"dim": 6, "length": 3, "projection": "mlp"})
    with fails(InputError, "condition.score is read by trunk=mmdit alone"):
        ConditionTokens(ConditionConfig(score=ScoreConfig()), 8)
    model = made(score=None)
    with fails(InputError, "without condition.score"):
        model.sample(given(), index=INDEX)
    with fails(InputError, "does not say which text encoder"):
        model.text_condition(["a"])
