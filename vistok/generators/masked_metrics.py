"""Metrics of generators that predict masked positions from the others.

masked_nll: nats per masked position, averaged over eight shares of masked positions;
masked_accuracy: share of masked codes that are right.

The shares stand for all numbers 1..L of masked positions with equal weight. Averaged over masks,
masked_nll times L is then the mean negative log-likelihood of a sequence whose positions are
sampled one by one in a random order, and by Jensen's inequality no less than that of the mixture of
all orders (arXiv 2110.02037): comparable to `nll` of sequential generators, from above. It says
nothing of what several positions at once lose by being sampled independently. Masks depend on a
sample's codes alone, those of its prefix.
Letters: B batch, L positions, F factors, V vocabulary of a factor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from vistok.core.rng import Rng

_EVALUATED = 8  # shares of masked positions

# A mask [B, L] -> nats [B, L] and share of right factors [B, L] of all positions.
Score = Callable[[Tensor], tuple[Tensor, Tensor]]


def over_masks(
    indices: Tensor, seen: Tensor | None, score: Score
) -> dict[str, tuple[Tensor | float, int]]:
    """{name: (sum, count)} of the metrics above.

    Args:
        indices: [B, L, F]. seen: [B, L] bool, positions that exist; None = all.
    """
    there = torch.ones_like(indices[..., 0], dtype=torch.bool) if seen is None else seen
    length = there.sum(-1)
    known = (indices * there[..., None]).cpu()
    key = torch.tensor([zlib.crc32(row.numpy().tobytes()) for row in known])
    nats_sum, right_sum, masked = 0.0, 0.0, 0
    for i in range(_EVALUATED):
        noise = Rng(0, "masked/evaluate", i).uniform(key, (indices.shape[1],))
        # What lies behind a prefix comes last.
        noise = noise.to(indices.device).masked_fill(~there, 2.0)
        rank = noise.argsort(dim=-1).argsort(dim=-1)
        count = (length * (i + 0.5) / _EVALUATED).floor().long() + 1
        mask = (rank < count[:, None]) & there
        nats, right = score(mask)
        # A sample's mean stands for all of its positions.
        nats = (nats * mask).sum(-1).double()
        nats_sum = nats_sum + (nats / mask.sum(-1) * length).sum()
        right_sum = right_sum + (right * mask).sum().double()
        masked += int(mask.sum())
    return {
        "masked_nll": (nats_sum, int(length.sum()) * _EVALUATED),
        "masked_accuracy": (right_sum, masked),
    }


def right_share(logits: list[Tensor], indices: Tensor) -> Tensor:
    """Share [B, L] of a position's factors whose most likely code is right.

    Args:
        logits: [B, L, V] of each factor. indices: [B, L, F].
    """
    guess = torch.stack([part.argmax(-1) for part in logits], dim=-1)
    return (guess == indices).float().mean(-1)
