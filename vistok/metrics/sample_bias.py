"""Upward bias of a Fréchet distance by the finite number of samples.

Two independent sets of n and m samples of one Gaussian distribution with covariance C (eigenvalues
l_i) are not at distance 0. To second order in the sampling error, the expected distance is

    (1/n + 1/m) (tr C + 1/2 sum_ij l_i l_j / (l_i + l_j) + 1/4 tr C)

the first term of the means, the others of the covariances (d^2(C, C + E) = 1/2 sum_ij E_ij^2 /
(l_i + l_j), and the variance of a sample covariance's entry is l_i l_j (1 + [i = j]) / n). So a
distance falls as 1/n toward its limit: Chong & Forsyth, arXiv 1911.07023; that no unbiased estimate
exists: Bińkowski et al., arXiv 1801.01401. The expansion holds where n and m exceed the width of
the features.
"""

from __future__ import annotations

import numpy as np
import torch


def bias_factor(cov: np.ndarray, count: int | None = None) -> float:
    """The factor of (1/n + 1/m) above.

    Args:
        cov: [D, D] float64, a covariance or an estimate of it.
        count: samples behind an estimate, whose eigenvalues lie too far apart: they are drawn to
            their mean as much as Gaussian samples ask for (oracle approximating shrinkage, Chen et
            al. 2010, arXiv 0907.4698). None = the covariance itself.
    """
    values = torch.linalg.eigvalsh(torch.as_tensor(cov).double()).clamp_min(0)
    if count is not None:
        values = shrunk(values, count)
    sums = values[:, None] + values
    pairs = torch.where(sums > 0, values[:, None] * values / sums.clamp_min(1e-300), 0.0).sum()
    return float(1.25 * values.sum() + pairs / 2)


def shrunk(values: torch.Tensor, count: int) -> torch.Tensor:
    """Eigenvalues [D] of a covariance estimate of `count` samples, drawn to their mean."""
    width, trace, square = len(values), values.sum(), (values**2).sum()
    spread = square - trace**2 / width
    if width == 1 or spread <= 0:
        return values
    share = ((1 - 2 / width) * square + trace**2) / ((count + 1 - 2 / width) * spread)
    share = share.clamp(0, 1)
    return (1 - share) * values + share * trace / width
