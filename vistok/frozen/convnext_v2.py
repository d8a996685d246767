"""ConvNeXt V2 (arXiv 2301.00808) as a feature network: the mean of its last map.

In timm's key names. Unlike V1 its blocks have no layer scale but a global response normalization:
GRN(x) = gamma x n(x) + beta + x, n(x) a channel's norm over all positions divided by the mean of
those of all channels.

Letters: B batch, c channels, h w positions of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


@dataclass(frozen=True)
class ConvNeXtShape:
    """Blocks and channels of the four stages."""

    depths: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (128, 256, 512, 1024)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.widths[-1]


class _MapNorm(nn.LayerNorm):
    """Layer norm over the channels of a map [B, c, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _GRN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, h, w, c]."""
        size = x.norm(dim=(1, 2), keepdim=True)
        share = size / (size.mean(-1, keepdim=True) + _EPS)
        return x + self.weight * (x * share) + self.bias


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.grn = _GRN(4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.grn(F.gelu(self.fc1(x))))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm(y)).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, before: int | None, width: int, depth: int) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if before is not None:
            self.downsample = nn.Sequential(
                _MapNorm(before, eps=_EPS), nn.Conv2d(before, width, 2, stride=2)
            )
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class ConvNeXtV2(nn.Module):
    """Normalized images [B, 3, H, W] -> [B, c]: the mean of the last map, without the norm that a
    classifier would put behind it."""

    def __init__(self, shape: ConvNeXtShape) -> None:
        super().__init__()
        first = shape.widths[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, stride=4), _MapNorm(first, eps=_EPS))
        befores = (None, *shape.widths)
        self.stages = nn.Sequential(
            *map(_Stage, befores[: len(shape.widths)], shape.widths, shape.depths)
        )

    def ready(self) -> None:
        """Nothing to prepare once the weights are there."""

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x)).mean((2, 3))
