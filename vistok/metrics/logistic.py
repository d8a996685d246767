"""Multinomial logistic regression: what a linear probe fits to frozen features.

Convex, started at zero and solved by L-BFGS, so there is no seed and no learning rate to tune. The
penalty is chosen on a held-out fifth of the training samples: from the strongest to the weakest,
each fit starts where the one before ended. Then all samples are fitted from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.core.errors import InputError

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # the first of equally good ones is taken
STEPS = 100
_SEARCH = 30  # steps with each penalty while it is chosen
_HELD = 5  # every fifth sample chooses the penalty


@dataclass(frozen=True)
class Linear:
    """logits = ((x - mean) / scale) weight + bias."""

    mean: Tensor  # [d]
    scale: Tensor  # [d]
    weight: Tensor  # [d, classes]
    bias: Tensor  # [classes]
    penalty: float

    def classify(self, features: Tensor) -> Tensor:
        """features [n, d] -> classes [n]."""
        return (((features - self.mean) / self.scale) @ self.weight + self.bias).argmax(-1)

    def top1(self, features: Tensor, labels: Tensor) -> float:
        """Share of samples whose class is found."""
        return float((self.classify(features) == labels).double().mean())


def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    steps: int = STEPS,
) -> Linear:
    """features [n, d] float32, labels [n] in 0..classes-1 -> the classifier.

    Minimises the mean cross-entropy plus penalty / 2 times the squared weights (not the biases) of
    features with mean 0 and variance 1. ValueError for labels outside the classes.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; expected 0..{classes - 1}"
        )
    best = penalties[0]
    held = torch.arange(len(labels), device=labels.device) % _HELD == _HELD - 1
    if len(penalties) > 1 and bool(held.any()):
        few, scores, last = min(steps, _SEARCH), [], None
        for penalty in penalties:
            last = _solve(features[~held], labels[~held], classes, penalty, few, last)
            scores.append(last.top1(features[held], labels[held]))
        best = penalties[scores.index(max(scores))]
    return _solve(features, labels, classes, best, steps)


def _solve(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalty: float,
    steps: int,
    start: Linear | None = None,
) -> Linear:
    # Evaluation runs in inference mode, whose tensors autograd refuses: work on copies.
    with torch.inference_mode(False), torch.enable_grad():
        x, y = features.detach().clone().float(), labels.detach().clone()
        mean, scale = x.mean(0), x.std(0, unbiased=False)
        scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))
        x = (x - mean) / scale
        weight = x.new_zeros((x.shape[1], classes)).requires_grad_()
        bias = x.new_zeros(classes).requires_grad_()
        if start is not None:
            weight.data.copy_(start.weight)
            bias.data.copy_(start.bias)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=steps,
            history_size=10,
            tolerance_grad=1e-6,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = F.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        solver.step(closure)
    return Linear(mean, scale, weight.detach(), bias.detach(), penalty)
