"""Standard error of a Fréchet distance, from its change with each single sample.

The distance of a set's plug-in moments to others, d(m1, C1; m2, C2), changes to first order by

    I(x) / n = (2 (x - m1) . (m1 - m2) + (x - m1)^T (1 - T) (x - m1) - tr (C1 - T C1)) / n

with sample x of n, where T = C1^(-1/2) (C1^(1/2) C2 C1^(1/2))^(1/2) C1^(-1/2) is the optimal map
between the two Gaussians (the gradient of the Bures distance: Bhatia, Jain & Lim, "On the
Bures-Wasserstein distance between positive definite matrices", 2019). var I / n is the
infinitesimal jackknife's variance of the distance (Efron 1982): what a jackknife over images would
give, without a covariance for each group of them.

A jackknife counts the second-order part of a statistic twice (Efron & Stein 1981), and near
distance 0 there is nothing else: there the error would be 1.4 times too large. That part is taken
off once, as Gaussian features have it (the variance of the expansion in `sample_bias`); half of
the jackknife's variance stays in any case.

The error is that of the distance around its expectation at this number of samples. It says nothing
of the bias: that is `sample_bias`.

Letters: n samples, D feature width, r rank, T frames of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.frechet import FeatureStats, factor
from vistok.metrics.sample_bias import shrunk
from vistok.metrics.stored import FeatureStore, chosen

CAP, FEWEST = 1024, 256  # vectors that are kept of a set; samples, where these are long clips


class FeatureSample:
    """Feature vectors of a keyed subset of a set: `update` on every batch, `gathered()` at the end.

    A variance needs no more than some hundred samples, so memory stays small whatever the set.
    """

    def __init__(self, dim: int, numbers: int | Tensor, together: int = 1) -> None:
        """
        Args:
            numbers: how many samples (images or clips) the set has, numbered from 0, or their
                numbers [n].
            together: vectors of each sample: frames of a clip.
        """
        every = torch.arange(numbers) if isinstance(numbers, int) else numbers.cpu().long()
        places = chosen(len(every), max(CAP // together, FEWEST))
        self.numbers = every if places is None else every[torch.from_numpy(places)]
        self.total, self.together = len(every), together
        self._store = FeatureStore(dim, len(self.numbers) * together)

    def update(self, features: Tensor, index: Tensor) -> FeatureSample:
        """Keep what belongs to the subset of features [B, D] of the vectors numbered `index` [B]:
        sample number, or sample number times T plus frame."""
        index = index.cpu()
        rows = torch.isin(index // self.together, self.numbers)
        if rows.any():
            self._store.update(features[rows.to(features.device)], index[rows])
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors so far, to resume from here."""
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self._store.load_state_dict(state)

    def gathered(self) -> Tensor:
        """[n, T, D] float32 by sample number, of all ranks; every rank calls."""
        found = self._store.gathered()
        if len(found) != len(self.numbers) * self.together:
            raise InputError(
                f"a sample of {len(self.numbers)} x {self.together} vectors has {len(found)}"
            )
        return found.unflatten(0, (-1, self.together))


def influences(features: Tensor, own: FeatureStats, other: FeatureStats) -> Tensor:
    """[n] float64: I(x) of samples of the set `own` on its distance to `other`.

    Args:
        features: [n, T, D]; of samples with several vectors the mean over these.
    """
    cov, gap = torch.from_numpy(own.cov), torch.from_numpy(own.mean - other.mean)
    root = factor(cov)  # [D, r]
    product = root.T @ factor(torch.from_numpy(other.cov))
    squares, turn = torch.linalg.eigh(product @ product.T)
    scales = squares.clamp_min(0).sqrt()  # [r]
    x = (features.double().cpu() - torch.from_numpy(own.mean)).flatten(0, 1).T  # [D, n T]
    if root.shape[0] == root.shape[1] and not root.triu(1).any():
        white = torch.linalg.solve_triangular(root, x, upper=False)
    else:
        white = torch.linalg.lstsq(root, x, driver="gels").solution  # of full column rank
    moved = (scales[:, None] * (turn.T @ white) ** 2).sum(0)  # (x - m1)^T T (x - m1)
    change = 2 * (gap @ x) + (x**2).sum(0) - moved - (cov.trace() - scales.sum())
    return change.unflatten(0, features.shape[:2]).mean(1)


def error_of(values: Tensor, total: int) -> float:
    """Standard error of a distance whose set has `total` samples, from the influences of some.

    Args:
        values: [n], or [k, n]: k independent parts, whose variances add up.
    """
    if values.shape[-1] < 2:
        return math.nan
    return math.sqrt(float(values.var(-1).sum()) / total)


def drawn_error(features: Tensor, total: int, own: FeatureStats, other: FeatureStats) -> float:
    """Standard error of the distance of a drawn set to a fixed reference.

    Args:
        features: [n, T, D] of some of the `total` samples of `own`.
    """
    variance = error_of(influences(features, own, other), total) ** 2
    doubled = _second_order(own, other)
    return math.sqrt(max(variance - doubled, variance / 2))


def paired_influences(
    features: Tensor, real: Tensor, own: FeatureStats, other: FeatureStats
) -> Tensor:
    """[2, n] float64: influences on the distance of reconstructions to the real images, where an
    image that is drawn changes both sides; and of those real images that were not reconstructed.

    Args:
        features: [n, T, D] of some reconstructions.
        real: [n, T, D] of the same images, which are among those of `other`.
    """
    share = own.count / other.count
    mine, theirs = influences(features, own, other), influences(real, other, own)
    return torch.stack([mine + share * theirs, math.sqrt(share * (1 - share)) * theirs])


def _second_order(own: FeatureStats, other: FeatureStats) -> float:
    """Variance of the second-order part of the distance, of Gaussian features near each other."""
    cov = torch.from_numpy(own.cov + other.cov) / 2
    values = shrunk(torch.linalg.eigvalsh(cov).clamp_min(0), own.count)
    sums = (values[:, None] + values).clamp_min(1e-300)
    pairs = (values[:, None] * values / sums) ** 2  # its diagonal is l^2 / 4
    squares = float((values**2).sum())
    return (2.25 * squares + float(pairs.sum())) / own.count**2
