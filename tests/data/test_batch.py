"""Samples of a batch: all fields follow, classes take turns."""

from __future__ import annotations

import torch

from vistok.core.records import Batch, Condition
from vistok.data.batch import of_each_class, to_device
from vistok.tokens import Tokens, TokenSpec


def batch() -> Batch:
    spec = TokenSpec(blocks=((2,),), vocab=(9,), prefix="token")
    return Batch(
        index=torch.arange(6),
        pixels=torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2),
        label=torch.tensor([2, 2, 0, 1, 0, 2]),
        text=tuple("abcdef"),
        condition=Condition(text=torch.arange(6).half().view(6, 1, 1)),
        tokens=Tokens.of(spec, torch.arange(6).view(6, 1, 1).expand(6, 2, 1)),
    )


def test_every_field_follows():
    part = batch().select(torch.tensor([4, 1]))
    assert part.index.tolist() == [4, 1] and part.text == ("e", "b")
    assert part.pixels[:, 0, 0, 0].tolist() == [4, 1] and part.label.tolist() == [0, 2]
    assert part.tokens.indices[:, 0, 0].tolist() == [4, 1] and part.target is None
    assert part.condition.text.flatten().tolist() == [4, 1] and part.condition.pooled is None


def test_cached_features_go_to_the_device_as_float32():
    moved = to_device(batch(), "cpu")
    assert moved.condition.text.dtype == torch.float32
    assert torch.equal(moved.condition.text.flatten(), torch.arange(6.0))


def test_classes_take_turns():
    assert of_each_class(batch(), 5).index.tolist() == [2, 3, 0, 4, 1]
    unlabeled = Batch(index=torch.arange(4), pixels=torch.zeros(4, 3, 2, 2))
    assert of_each_class(unlabeled, 2).index.tolist() == [0, 1]
