"""pFID-v1: the draws and the grid of the perturbed Fréchet distance.

A share alpha of an image's tokens is replaced by one of its delta nearest codes (Qiu et al. 2025,
"Robust Latent Matters", arXiv 2503.08354); the published grid was never released as code, so this
exact form carries its own name. The replacement itself is the quantizer's `perturb`.

Letters: N = L x P tokens of an image, L positions, P branches, B images, K codes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError

NAME = "pFID-v1"


class Cell(NamedTuple):
    """One Fréchet distance of the grid."""

    alpha: float  # share of tokens that are perturbed
    delta: int  # neighborhood size, the clean code included


FULL_GRID = tuple(Cell(a, d) for a in (0.5, 0.6, 0.7, 0.8, 0.9) for d in (200, 280, 360))
QUICK_GRID = (Cell(0.5, 200), Cell(0.7, 280), Cell(0.9, 360))

_REFERENCE_CODES = 4096  # the codebook size that the published deltas were chosen for
_STRIDE, _QUICK_IMAGES = 10, 5_000


def draws(seed: int, image_index: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """u [N], v [N] float64 in [0, 1): Philox-4x64-10 keyed by (seed, image index).

    The same numbers serve every cell of the grid.
    """
    if min(seed, image_index) < 0 or tokens < 1:
        raise InputError(
            f"draws of seed {seed}, image {image_index}, {tokens} tokens; expected numbers of 0 "
            f"or more, and at least one token"
        )
    key = np.array([seed, image_index], dtype=np.uint64)
    numbers = np.random.Generator(np.random.Philox(key=key)).random(2 * tokens)
    return numbers[:tokens], numbers[tokens:]


def ranks(u: np.ndarray, v: np.ndarray, alpha: float, delta: int) -> np.ndarray:
    """u, v [N] -> [N] int64: floor(v delta) where u <= alpha, else 0 (the clean code)."""
    if not 0 <= alpha <= 1 or delta < 1:
        raise InputError(f"alpha={alpha}, delta={delta}; expected alpha in 0..1, delta >= 1")
    return np.where(u <= alpha, np.floor(v * delta), 0).astype(np.int64)


def batch_ranks(index: Tensor, length: int, cell: Cell, branches: int = 1, seed: int = 0) -> Tensor:
    """[B, L, P] int64 for a batch: `Draws.ranks` of one cell.

    Args:
        index: [B] places of the images in the set's order.
        length: L, positions that are kept.
        branches: P; an image's numbers go to all tokens of branch 0, then to branch 1, ...
    """
    rows = []
    for image in index.tolist():
        row = ranks(*draws(seed, image, length * branches), *cell)
        rows.append(torch.from_numpy(row.reshape(branches, length).T.copy()))
    return torch.stack(rows) if rows else torch.zeros((0, length, branches), dtype=torch.int64)


def clip(grid: tuple[Cell, ...], codebook_size: int) -> tuple[Cell, ...]:
    """The grid with each delta at most K."""
    return tuple(Cell(alpha, min(delta, codebook_size)) for alpha, delta in grid)


def relative(grid: tuple[Cell, ...], codebook_size: int) -> tuple[Cell, ...]:
    """The grid of `pFID-v1-rel`: each delta times K / 4096, rounded (halves to even), 2 or more."""
    scale = codebook_size / _REFERENCE_CODES
    cells = tuple(Cell(alpha, max(2, round(delta * scale))) for alpha, delta in grid)
    return clip(cells, codebook_size)


def expected_change(alpha: float, delta: int) -> float:
    """Share of tokens that differ afterwards: rank 0 is drawn too and changes nothing."""
    return alpha * (delta - 1) / delta


def quick_subset(size: int, noun: str = "images") -> tuple[np.ndarray, str | None]:
    """Indices of `pFID-v1-quick` in a set of `size` images, and a note if they are not the rule's.

    The rule (0, 10, 20, ... up to 5,000 images) fits 50,000 images and more; of a smaller set all
    images are taken. `noun`: how the note calls them.
    """
    if size < _STRIDE * _QUICK_IMAGES:
        note = f"all {size} {noun}: too few for every {_STRIDE}th up to {_QUICK_IMAGES}"
        return np.arange(size), note
    return np.arange(_QUICK_IMAGES) * _STRIDE, None
