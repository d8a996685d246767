"""Fréchet distance between two sets of feature vectors, from running statistics.

FID = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)    (Heusel et al. 2017, arXiv 1706.08500)

With C1 = A A^T and C2 = B B^T the last trace is the sum of the singular values of A^T B, whatever
the factors. Pivoted Cholesky factors have as many columns as the covariance has rank, so nothing
that should be zero is ever put under a root: rank-deficient sets lose no digits, and no NaN, no
complex number and no added identity can arise.

Letters: B batch, D feature width, r rank.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError, MissingFileError
from vistok.core.regular_files import check_regular
from vistok.runtime import distributed
from vistok.storage.files import replacing


class FeatureStats:
    """Count, mean and scatter of feature vectors in fp64; no vector is kept.

    Batches are merged by Chan's rule (deviations from the batch's own mean, then a correction for
    the two means), which is safe for means of any size, unlike E[xx^T] - mm^T.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.dim, self.count = int(dim), 0
        self._mean = torch.zeros(self.dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, features: Tensor) -> FeatureStats:
        """Statistics of one set, features [B, D]."""
        return cls(features.shape[-1]).update(features)

    @classmethod
    def from_moments(cls, mean: np.ndarray, cov: np.ndarray, count: int) -> FeatureStats:
        """From published statistics: mean [D], cov [D, D] with divisor count - 1."""
        mean, cov = torch.as_tensor(mean).double(), torch.as_tensor(cov).double()
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)) or count < 2:
            raise InputError(
                f"moments: mean {tuple(mean.shape)}, cov {tuple(cov.shape)}, count {count}; "
                f"expected [D], [D, D] and a count of 2 or more"
            )
        stats = cls(len(mean))
        stats.count, stats._mean, stats._scatter = int(count), mean, cov * (count - 1)
        return stats._finite("moments")

    def update(self, features: Tensor) -> FeatureStats:
        """Add features [B, D] of any float type; ValueError if one is not finite."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise InputError(
                f"features have shape {tuple(features.shape)}; expected [B, {self.dim}]"
            )
        x = features.detach().to(self._mean.device).double()
        bad = (~torch.isfinite(x)).any(1)
        if bad.any():
            raise InputError(
                f"features of {int(bad.sum())} of {len(x)} samples are not finite (first: row "
                f"{int(bad.nonzero()[0])}); expected finite numbers, look at the images or the "
                f"network's precision"
            )
        if len(x):
            mean = x.mean(0)
            x = x - mean
            self._join(len(x), mean, x.T @ x)
        return self

    def merge(self, other: FeatureStats) -> FeatureStats:
        """Add another set's statistics to this one's; `other` is left alone."""
        if other.dim != self.dim:
            raise InputError(f"cannot merge features of width {other.dim} into {self.dim}")
        device = self._mean.device
        self._join(other.count, other._mean.to(device), other._scatter.to(device))
        return self

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if count == 0:
            return
        step = mean - self._mean
        self._mean = self._mean + step * (count / total)
        self._scatter = self._scatter + scatter
        self._scatter.addr_(step, step, alpha=self.count * count / total)
        self.count = total

    def reduce(self) -> FeatureStats:
        """New statistics of all ranks' samples together (each rank gets them); every rank calls."""
        count = int(distributed.sum_(torch.tensor(self.count)))
        mean = distributed.sum_(self._mean * self.count) / max(count, 1)
        step = mean - self._mean
        whole = FeatureStats(self.dim, self._mean.device)
        whole.count, whole._mean = count, mean
        whole._scatter = distributed.sum_(self._scatter + self.count * torch.outer(step, step))
        return whole

    @property
    def mean(self) -> np.ndarray:
        """[D] float64."""
        if self.count < 1:
            raise InputError("feature statistics of 0 samples have no mean; update them first")
        return self._mean.cpu().numpy()

    @property
    def cov(self) -> np.ndarray:
        """[D, D] float64, divisor count - 1."""
        return self.covariance()

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """[D, D] float64, divisor count - ddof."""
        if self.count < 2:
            raise InputError(
                f"feature statistics of {self.count} samples have no covariance; expected 2 or more"
            )
        return (self._scatter / (self.count - ddof)).cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """The sums as tensors, to resume from exactly here."""
        count = torch.tensor(self.count, dtype=torch.int64)
        return {"count": count, "mean": self._mean, "scatter": self._scatter}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave; it stays on this one's device."""
        device = self._mean.device
        self.count = int(state["count"])
        self._mean, self._scatter = state["mean"].to(device), state["scatter"].to(device)

    def save(self, path: str | Path) -> None:
        """Write an .npz of count, mean and scatter (renamed into place)."""
        with replacing(path) as draft, open(draft, "wb") as file:
            np.savez(
                file,
                count=np.int64(self.count),
                mean=self._mean.cpu().numpy(),
                scatter=self._scatter.cpu().numpy(),
            )

    @classmethod
    def load(cls, path: str | Path) -> FeatureStats:
        """Read what `save` wrote; one-line ValueError for anything else. Never unpickles."""
        fail = lambda why: ValueError(
            f"{path}: not saved feature statistics ({why}); expected an .npz with count, mean [D] "
            f"and scatter [D, D]"
        )
        try:
            check_regular(path)
            with np.load(path, allow_pickle=False) as file:
                count, mean, scatter = (file[key] for key in ("count", "mean", "scatter"))
        except FileNotFoundError:
            raise MissingFileError(f"{path}: no such file; expected saved statistics") from None
        except (KeyError, ValueError, OSError, TypeError, zipfile.BadZipFile) as error:
            raise fail(" ".join(str(error).split())) from None
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)) or count.shape != ():
            raise fail(f"shapes {count.shape}, {mean.shape}, {scatter.shape}")
        stats = cls(len(mean))
        stats.count = int(count)
        stats._mean = torch.from_numpy(mean.astype(np.float64))
        stats._scatter = torch.from_numpy(scatter.astype(np.float64))
        return stats._finite(str(path))

    def _finite(self, source: str) -> FeatureStats:
        if not (torch.isfinite(self._mean).all() and torch.isfinite(self._scatter).all()):
            raise InputError(f"{source}: feature statistics hold values that are not finite")
        return self


def frechet_distance(a: FeatureStats, b: FeatureStats, ddof: int = 1) -> float:
    """FID of two sets; 0 for equal ones, never negative or NaN, the same in both directions.

    ddof: covariances are divided by count - ddof; 1 is usual, LARP's FVD has 0.

    The number is exact for these samples, and biased upwards: two independent sets of one
    distribution are not at 0, by how much says `sample_bias.bias_factor`. Warns in one line when a
    set has fewer samples than feature dimensions, where the bias is far more than usual.
    """
    if a.dim != b.dim:
        raise InputError(
            f"feature widths {a.dim} and {b.dim} differ; expected two sets of one feature network"
        )
    for side in (a, b):
        if side.count < side.dim:
            warnings.warn(
                f"Fréchet distance of {side.count} samples in {side.dim} dimensions: fewer samples "
                f"than dimensions, compare only with the same number of samples",
                stacklevel=2,
            )
    cov_a, cov_b = (torch.from_numpy(side.covariance(ddof)) for side in (a, b))
    gap = a.mean - b.mean
    traces = float(cov_a.trace() + cov_b.trace())
    distance = float(gap @ gap) + traces - 2 * _overlap(cov_a, cov_b, traces)
    if math.isnan(distance):
        raise InputError("Fréchet distance overflows float64; expected features of ordinary size")
    return max(0.0, distance)  # below 0 is rounding


def _overlap(cov_a: Tensor, cov_b: Tensor, traces: float) -> float:
    """tr (C1 C2)^(1/2): the sum of the singular values of A^T B."""
    product = factor(cov_a).T @ factor(cov_b)  # [r1, r2]
    if min(product.shape) == 0:
        return 0.0
    # Squares of the singular values are cheaper to find (eigenvalues of a Gram matrix), but each
    # is only known to about 8 eps times the largest, which the small ones may not bear.
    gram = product @ product.T if product.shape[0] <= product.shape[1] else product.T @ product
    squares = torch.linalg.eigvalsh(gram).clamp_min(0)
    noise = 8 * torch.finfo(torch.float64).eps * squares[-1]
    if noise == 0:
        return 0.0
    doubt = (noise / (squares.sqrt() + noise.sqrt())).sum()
    if doubt <= 1e-9 * traces:
        return float(squares.sqrt().sum())
    return float(torch.linalg.svdvals(product).sum())


def factor(cov: Tensor) -> Tensor:
    """Positive semi-definite C [D, D] float64 -> A [D, r] with A A^T = C, r the numerical rank."""
    from scipy.linalg import lapack

    plain, failed = torch.linalg.cholesky_ex(cov)  # four times faster, for full rank alone
    floor = len(cov) * torch.finfo(torch.float64).eps * cov.diagonal().max()
    if not failed and (plain.diagonal() ** 2).min() > floor:
        return plain
    packed, pivots, rank, _ = lapack.dpstrf(cov.numpy(), lower=1)
    a = np.zeros((len(cov), rank))
    a[pivots - 1] = np.tril(packed)[:, :rank]
    return torch.from_numpy(a)
