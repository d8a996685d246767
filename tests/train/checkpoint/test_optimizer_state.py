"""The state of optimizers is checked like weights are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vistok.train.checkpoint.files import CheckpointError
from vistok.train.checkpoint.optimizer_state import load_optimizer, optimizer_state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda one: one > 0,
            r"state 'weight/exp_avg' has type bool \(boolean\); expected float32",
        ),
        (lambda one: one.long(), "has type int64"),
        (lambda one: one.to(torch.complex64), "has type complex64"),
        (lambda one: one.double() + 1e300, "do not fit float32"),
        (lambda one: one[:1], r"has shape \(1, 2\); expected \(3, 2\)"),
    ],
)
def test_state_of_another_shape_or_type_is_refused(fails, change, words):
    module = nn.Linear(2, 3)
    optimizers = [torch.optim.AdamW(module.parameters())]
    module(torch.ones(1, 2)).sum().backward()
    optimizers[0].step()
    tensors, moved = optimizer_state(optimizers, module)
    load_optimizer(optimizers, module, dict(tensors), moved, Path("step_1"))
    again, _ = optimizer_state(optimizers, module)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    tensors["weight/exp_avg"] = change(tensors["weight/exp_avg"])
    with fails(CheckpointError, "step_1: ", words):
        load_optimizer(optimizers, module, tensors, moved, Path("step_1"))
