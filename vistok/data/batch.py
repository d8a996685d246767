"""Batches on their way to the device, and the samples of one to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from vistok.core.records import Batch, Condition


@dataclass(frozen=True)
class LoadedBatch(Batch):
    """A batch on its way to the device: pixels are uint8, mirroring is decided but not done."""

    flip: Tensor | None = None  # [B] bool


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on `device`: uint8 pixels -> float32 in 0..1, mirrored where its draws say so.

    All frames of a clip are mirrored alike. Cached features and latents of 16 bits become float32.
    `index` stays on the CPU: it keys draws, and asking a GPU for it would wait for all its work.
    """
    move = lambda tensor: None if tensor is None else tensor.to(device, non_blocking=True)
    wide = lambda tensor: None if tensor is None else _float32(move(tensor))
    moved = Batch(
        index=batch.index,
        pixels=_unit(move(batch.pixels)),
        target=_unit(move(batch.target)),
        label=move(batch.label),
        text=batch.text,
        fps=move(batch.fps),
        target_fps=move(batch.target_fps),
        tokens=None if batch.tokens is None else batch.tokens.to(device, non_blocking=True),
        prefix=None if batch.prefix is None else batch.prefix.to(device, non_blocking=True),
        latents=wide(batch.latents),
        space=wide(batch.space),
        condition=None if batch.condition is None else map_tensors(batch.condition, wide),
    )
    flip = move(getattr(batch, "flip", None))
    if flip is None or moved.pixels is None:
        return moved
    mirror = lambda x: torch.where(flip.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    target = None if moved.target is None else mirror(moved.target)
    return replace(moved, pixels=mirror(moved.pixels), target=target)


def to_uint8(pixels: Tensor) -> Tensor:
    """[..., H, W] in 0..1 -> uint8, halves up: trunc(255 x + 0.5), pFID-v1's rule.

    Pixels that came from uint8 return to exactly the same numbers.
    """
    return (pixels.float() * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def map_tensors(condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
    """The condition with `change` applied to each of its tensors."""
    values = {field.name: getattr(condition, field.name) for field in fields(condition)}
    return replace(condition, **{n: change(v) for n, v in values.items() if isinstance(v, Tensor)})


def _unit(pixels: Tensor | None) -> Tensor | None:
    if pixels is None or pixels.dtype != torch.uint8:
        return pixels
    return pixels.float().div_(255.0)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def of_each_class(batch: Batch, count: int) -> Batch:
    """`count` samples of the batch (all, if it has fewer), taken class by class in turn.

    A small grid of them thus shows as many classes as it can.
    """
    labels = [0] * len(batch.index) if batch.label is None else batch.label.tolist()
    rank = [labels[:i].count(label) for i, label in enumerate(labels)]  # within its class
    order = sorted(range(len(labels)), key=lambda i: (rank[i], labels[i], i))
    return batch.select(torch.tensor(order[:count]))
