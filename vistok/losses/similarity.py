"""Similarities between a student's and a teacher's features, as losses per sample.

Letters: B batch (of this process, or global), n positions, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.runtime import distributed


def negative_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """-cos(student, teacher), a mean over positions: [B, (n,) D] twice -> [B] float32 in -1..1."""
    cosine = F.cosine_similarity(student.float(), teacher.float(), dim=-1)
    return -cosine.flatten(1).mean(1) if cosine.ndim > 1 else -cosine


def symmetric_infonce(
    student: Tensor, teacher: Tensor, counts: Tensor | None, weights: Tensor, scale: float
) -> Tensor:
    """Cross-entropy of every sample's pair among all samples, in both directions (CLIP, arXiv
    2103.00020): student, teacher [B, D] of this process -> scalar, the same on all processes.

    The batch is the global one, and gradients flow through the gathered features of both sides.

    Args:
        counts: [B] 1 for samples that take part, as pairs and as negatives, else 0; None = all do.
        weights: [B] factor of each sample's term. scale: of the inner products (logit scale).
    """
    gathered = distributed.gather_with_gradient
    student, teacher, weights = gathered(student), gathered(teacher), distributed.gather(weights)
    logits = scale * student @ teacher.T
    labels = torch.arange(len(logits), device=logits.device)
    present = torch.ones_like(weights) if counts is None else distributed.gather(counts)
    if counts is not None:
        # A sample that is left out keeps its own pair, so that its unused row stays finite.
        shown = (present > 0)[None] | (labels[:, None] == labels)
        both = [each.masked_fill(~shown, -torch.inf) for each in (logits, logits.T)]
    else:
        both = [logits, logits.T]
    terms = sum(F.cross_entropy(each, labels, reduction="none") for each in both) / 2
    return (terms * weights * present).sum() / present.sum().clamp_min(1)


def global_mean(terms: Tensor, counts: Tensor | None, weights: Tensor) -> Tensor:
    """Mean of weight times term over the samples of the global batch that count: [B] -> scalar.

    Without `counts` it is this process's mean, whose average over processes is the global one.
    """
    if counts is None:
        return (terms * weights).mean()
    # Processes may have unequal numbers of samples that count.
    total = distributed.mean((terms * weights * counts).mean())
    share = distributed.mean(counts.mean())
    return total / share.clamp_min(torch.finfo(share.dtype).tiny)
