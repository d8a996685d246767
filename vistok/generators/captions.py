"""Text in front of a sequence as LlamaGen has it (arXiv 2406.06525).

Features go through two linear layers. Padding is hidden from attention instead of being replaced,
and stored features, which are not trained, stand for the text of samples without one.
Letters: B batch, M text positions, C width of features, S slots in front, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vistok.core.records import Condition
from vistok.core.selection import Record
from vistok.runtime import distributed


@dataclass(frozen=True)
class SeenText(Record):
    """Slots in front of a sequence that its positions may look at."""

    mask: Tensor  # [B, S] bool

    @property
    def keys(self) -> int:
        """Keys in front of the sequence's own: none, since the slots are part of it."""
        return 0

    def join(self, other: SeenText) -> SeenText:
        """The rows of both for guidance: a row without its condition keeps the mask of its sample's
        text, as LlamaGen's sampler and its training have it."""
        return SeenText(torch.cat([self.mask, self.mask]))


def caption_projection(dim: int, width: int) -> nn.Sequential:
    """[..., C] -> [..., W]: two linear layers without biases, GELU by its tanh formula between."""
    return nn.Sequential(
        nn.Linear(dim, width, bias=False),
        nn.GELU(approximate="tanh"),
        nn.Linear(width, width, bias=False),
    )


def stored_empty(length: int, dim: int) -> Tensor:
    """[M, C] features that stand for no text: drawn once, never trained, saved with the model."""
    return torch.randn(length, dim) / math.sqrt(dim)


def moved_to_end(text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, M, C] and their mask [B, M], with the padding moved in front of the text."""
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return text.gather(1, order[..., None].expand_as(text)), mask.gather(1, order)


def seen_slots(mask: Tensor, behind: int) -> SeenText:
    """Slots of a text's mask [B, M] and of `behind` tokens that are always seen."""
    return SeenText(torch.nn.functional.pad(mask, (0, behind), value=True))


def with_text(condition: Condition, batch: int) -> Tensor | None:
    """[B] bool: samples that have any text; None = all."""
    if condition.text is None:
        return torch.zeros(batch, dtype=torch.bool)
    return None if condition.text_mask is None else condition.text_mask.bool().any(-1)


def weighted_mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of values [B, L] over the samples that count.

    Args:
        counted: [B] bool; None = all. Processes hold equal batches: the mean of their results is
            that over the counted samples of all of them.
    """
    if counted is None:
        return values.mean()
    counted = counted.to(values)
    everyone = distributed.sum_(counted.sum()).clamp(min=1)
    share = len(counted) * distributed.world_size() / everyone
    return (values * (counted * share)[:, None]).mean()
