"""Some of a batch's samples: micro-batches, and the ones to show."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from vistok.core.records import Batch


def select(batch: Batch, rows: Tensor | slice) -> Batch:
    """Some samples of a batch: those of `rows` [n] int64 on the CPU, in that order, or of a slice.

    A slice is a view, and needs nothing from the host.
    """
    places = range(len(batch.index))[rows] if isinstance(rows, slice) else rows.tolist()
    cut = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            cut[field.name] = value[rows]
        elif isinstance(value, tuple):
            cut[field.name] = tuple(value[i] for i in places)
        elif value is not None:  # Tokens
            cut[field.name] = value.select(rows)
    return replace(batch, **cut)


def of_each_class(batch: Batch, count: int) -> Batch:
    """`count` samples, the classes in turn, so that a image shows as many as it can."""
    labels = [0] * len(batch.index) if batch.label is None else batch.label.tolist()
    turn = [labels[:i].count(label) for i, label in enumerate(labels)]
    order = sorted(range(len(labels)), key=lambda i: (turn[i], labels[i], i))
    return select(batch, torch.tensor(order[:count]))
