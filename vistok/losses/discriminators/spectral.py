"""Convolutions over positions with spectral norm (arXiv 1802.05957)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.runtime.precision import no_autocast


class SpectralConv1d(nn.Module):
    """1D convolution, circular at its ends, its weight divided by its largest singular value:
    [B, C, L] -> [B, C', L].

    The singular vectors are buffers. Every pass in training improves them by one power iteration
    before they are used; evaluation takes them as they are stored. They depend on the weight alone,
    so that processes agree on them. The state has the names of torch's `spectral_norm`.
    """

    EPS = 1e-12

    def __init__(self, inside: int, outside: int, kernel: int = 1) -> None:
        super().__init__()
        plain = nn.Conv1d(inside, outside, kernel)  # torch's initialization
        self.weight_orig, self.bias = plain.weight, plain.bias
        rows, columns = outside, inside * kernel
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0, eps=self.EPS))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0, eps=self.EPS))

    def weight(self) -> Tensor:
        """The weight over its largest singular value; in training, after a power iteration."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                v = F.normalize(matrix.T @ self.weight_u, dim=0, eps=self.EPS)
                u = F.normalize(matrix @ v, dim=0, eps=self.EPS)
                self.weight_v.copy_(v)
                self.weight_u.copy_(u)
        # Copies, since a second pass moves the buffers before the first is differentiated.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, matrix @ v)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            weight = self.weight()
        return circular_conv(x, weight, self.bias)


class CircularConv1d(nn.Conv1d):
    """1D convolution, circular at its ends: [B, C, L] -> [B, C', L]."""

    def forward(self, x: Tensor) -> Tensor:
        return circular_conv(x, self.weight, self.bias)


def circular_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[B, C, L] -> [B, C', L] with kernels [C', C, k], k odd."""
    reach = weight.shape[-1] // 2
    return F.conv1d(F.pad(x, (reach, reach), mode="circular") if reach else x, weight, bias)
