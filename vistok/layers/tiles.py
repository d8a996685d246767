"""Maps in k x k tiles: cutting, joining, and a group norm whose statistics are those of the tiles.

Letters: B batch, C channels, G groups, h w positions of a map, k tiles of a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.runtime.precision import no_autocast


def cut(x: Tensor, tiles: int) -> Tensor:
    """[B, C, k h, k w] -> [B k k, C, h, w], the tiles of a sample row by row."""
    return rearrange(x, "b c (i h) (j w) -> (b i j) c h w", i=tiles, j=tiles)


def join(x: Tensor, tiles: int) -> Tensor:
    """The inverse of `cut`."""
    return rearrange(x, "(b i j) c h w -> b c (i h) (j w)", i=tiles, j=tiles)


class DeviationNorm(nn.Module):
    """Group norm by the standard deviation itself: (x - mean) / (deviation + eps), biased.

    GPSToken's decoder has it (arXiv 2509.01109); its releases are 1e-6 away from a group norm where
    a map is nearly flat. With several `tiles`, mean and deviation are those of each tile, enlarged
    to the map's positions (bicubic): a map of an image larger than those of the training keeps
    their colors, and no tile has a border.
    """

    tiles: int = 1  # k; set by decoders of tiles

    def __init__(self, groups: int, channels: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same."""
        tiles, shape = self.tiles, x.shape
        with no_autocast(x.device):
            # Laid out and summed as in the original: where a tile is flat, its deviation is the
            # rounding of this sum, and eps is all that is left below it.
            parts = cut(x.float(), tiles).contiguous()
            parts = parts.reshape(len(parts), self.groups, -1, *parts.shape[2:])
            deviation, mean = torch.std_mean(parts, dim=(2, 3, 4), correction=0)  # [B k k, G]
            if tiles > 1:
                deviation, mean = (self._enlarged(part, shape[2:]) for part in (deviation, mean))
            else:
                deviation, mean = deviation[..., None, None], mean[..., None, None]
            y = x.float().reshape(len(x), self.groups, -1, *shape[2:])
            y = (y - mean[:, :, None]) / (deviation[:, :, None] + self.eps)
            gain, offset = (part.float()[:, None, None] for part in (self.weight, self.bias))
            return (y.reshape(shape) * gain + offset).to(x.dtype)

    def _enlarged(self, statistic: Tensor, sides: tuple[int, int]) -> Tensor:
        """[B k k, G] of the tiles -> [B, G, h, w] of the map's positions."""
        small = join(statistic[..., None, None], self.tiles)
        return F.interpolate(small, size=tuple(sides), mode="bicubic")
