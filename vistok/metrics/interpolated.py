"""iFID: the draws, shares and weights of interpolated Fréchet distances.

A sample's tokens or latents are mixed with those of its nearest training sample and decoded: what a
decoder makes of inputs between those it was trained on. `iFID-v1` is that of continuous latents (Xu
et al. 2026, arXiv 2603.05630), `iFID-discrete-v1` our own for codes.

Letters: N = L x P tokens of an image, L positions, P branches, B images, k candidates, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.perturbed import draws

DISCRETE = "iFID-discrete-v1"
SHARES = (0.125, 0.25, 0.5)  # beyond a half the neighbor is the image, and the image is mixed in
QUICK_SHARES = (0.5,)
CONTINUOUS = "iFID-v1"
CANDIDATES, WEIGHT = 10, 0.5  # defaults of the authors' script
SEARCHED, QUICK_SEARCHED = 50_000, 10_000  # training images among which neighbors are sought


def taken(u: np.ndarray, share: float) -> np.ndarray:
    """u [N] in [0, 1) -> [N] bool: tokens that come from the neighbor, where u <= share.

    Shares of 0 and 1 are none and all.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share={share}; expected a share of the tokens, 0..1")
    return (u <= share) & (share > 0)


def batch_taken(
    index: Tensor, length: int, share: float, branches: int = 1, seed: int = 0
) -> Tensor:
    """[B, L, P] bool for a batch: tokens that come from the neighbor.

    u are the first N numbers of pFID's `draws`: all shares use the same, so that a larger share
    takes the same tokens and more.

    Args:
        index: [B] places of the images in the set's order.
        length: L, positions that are kept.
        branches: P; an image's numbers go to all tokens of branch 0, then to branch 1, ...
    """
    rows = []
    for image in index.tolist():
        row = taken(draws(seed, image, length * branches)[0], share)
        rows.append(torch.from_numpy(row.reshape(branches, length).T.copy()))
    return torch.stack(rows) if rows else torch.zeros((0, length, branches), dtype=torch.bool)


def chosen_candidate(squares: Tensor, index: Tensor, seed: int = 0) -> Tensor:
    """[n] which of a sample's k candidates it is mixed with, drawn with probabilities softmax(-s).

    Args:
        squares: [n, k] s: mean over all coordinates of the squared difference, nearest first.
        index: [n] places of the samples in the set's order: the key of the draws, one number each.
    """
    u = torch.tensor([draws(seed, image, 1)[0][0] for image in index.tolist()])
    below = torch.softmax(-squares.double(), 1).cumsum(1).cpu()
    return (below <= u[:, None]).sum(1).clamp(max=squares.shape[1] - 1)


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """[n, D] and [n, D] -> the vectors at `weight` of the arc from a to b, in float64.

    (sin((1 - w) t) a + sin(w t) b) / sin t, with t the angle between both; the lengths stay those
    of a and b, which are not normalized. Along a line where sin t < 1e-6.
    """
    a, b = a.double(), b.double()
    unit = lambda one: one / one.norm(dim=1, keepdim=True).clamp_min(1e-12)
    angle = (unit(a) * unit(b)).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = ((1 - weight) * angle).sin() * a + (weight * angle).sin() * b
    return torch.where(sine < 1e-6, torch.lerp(a, b, weight), arc / sine.clamp_min(1e-6))
