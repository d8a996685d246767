"""Batches on their way to the device, and some samples of one: micro-batches, ones to show."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from vistok.core.records import Batch


@dataclass(frozen=True)
class LoadedBatch(Batch):
    """A batch on its way to the device: pixels are uint8, mirroring is decided but not done."""

    flip: Tensor | None = None  # [B] bool


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on `device`: uint8 pixels -> float32 in 0..1, mirrored where its draws say so.

    `index` stays on the CPU: it keys draws, and asking a GPU for it would wait for all its work.
    """
    move = lambda tensor: None if tensor is None else tensor.to(device, non_blocking=True)
    moved = Batch(
        index=batch.index,
        pixels=_float(move(batch.pixels)),
        target=_float(move(batch.target)),
        label=move(batch.label),
        text=batch.text,
        fps=move(batch.fps),
        tokens=None if batch.tokens is None else batch.tokens.to(device, non_blocking=True),
        latents=move(batch.latents),
    )
    flip = move(getattr(batch, "flip", None))
    if flip is None or moved.pixels is None:
        return moved
    mirror = lambda x: torch.where(flip.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    target = None if moved.target is None else mirror(moved.target)
    return replace(moved, pixels=mirror(moved.pixels), target=target)


def _float(pixels: Tensor | None) -> Tensor | None:
    if pixels is None or pixels.dtype != torch.uint8:
        return pixels
    return pixels.float().div_(255.0)


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
