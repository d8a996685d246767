"""Images and clips to rows of patches and back.

Letters: B batch, T frames, H W pixels, C channels, D width, t h w the grid of patches. A patch is
p x p pixels of an image, or q frames of p x p pixels of a clip.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Shape
from vistok.layers.positions import PositionsConfig
from vistok.layers.resize import bicubic_matrix

LARGEST = 2**18  # patches of a sample, whose table of positions has a row for each


class PatchesConfig(Config):
    """Patches of an image or clip, and the table of their positions."""

    size: int = Field(default=16, ge=1, le=2**12)
    """Pixels of a side."""
    frames: int = Field(default=1, ge=1, le=2**12)
    """Frames of a patch; above 1 for clips only."""
    positions: PositionsConfig = "sincos"
    """sincos, learned or none; or {kind, sides, fit} of a table that is fitted to the grid.
    LARP's: sincos_sum, a fixed table of columns, rows and, added to them, frames; learned_sum, a
    learned table of each axis, all added."""
    position_base: float = Field(default=10000.0, gt=1)
    """Base of the sin-cos frequencies; small grids are told apart better with a small base."""
    class_token: bool = False
    """A learned token in front of the patches, which nothing reads (TiTok's CLIP heritage)."""

    def grid(self, shape: Shape) -> Grid:
        """Patches of a sample: (h, w), or (t, h, w) of a clip; ValueError if they do not fit."""
        window = self.window(shape)
        if any(side % part for side, part in zip(shape.sides, window, strict=True)):
            named = f"patches.size={self.size}"
            named += f", patches.frames={self.frames}" if shape.is_clip else ""
            raise InputError(f"sides={shape.sides} are no multiples of {named}; change one of them")
        grid = tuple(side // part for side, part in zip(shape.sides, window, strict=True))
        if math.prod(grid) > LARGEST:
            raise InputError(
                f"patches.size={self.size}: {math.prod(grid):,} patches of a sample with "
                f"sides={shape.sides}; expected {LARGEST:,} or fewer: use larger patches"
            )
        return grid

    def window(self, shape: Shape) -> Grid:
        """Sides of a patch, (p, p) or (q, p, p); ValueError for frames of an image."""
        if shape.is_clip:
            return (self.frames, self.size, self.size)
        if self.frames > 1:
            raise InputError(
                f"patches.frames={self.frames}, but this tokenizer takes images; set "
                "tokenizer.frames for clips, or patches.frames=1"
            )
        return (self.size, self.size)


class PatchEmbed(nn.Module):
    """Convolution over patches: [B, C, (T,) H, W] -> [B, cells, D], the last side fastest.

    `overlap` pixels are added to the window on each side, so that neighbours share context; frames
    do not overlap.
    """

    def __init__(self, patches: PatchesConfig, shape: Shape, width: int, overlap: int = 0) -> None:
        super().__init__()
        stride = patches.window(shape)
        reach = (0,) * (len(stride) - 2) + (overlap, overlap)
        window = tuple(side + 2 * more for side, more in zip(stride, reach, strict=True))
        conv = nn.Conv3d if shape.is_clip else nn.Conv2d
        self.proj = conv(shape.channels, width, window, stride=stride, padding=reach)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def resample_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Kernel of a patch embedding [D, C, p, p] for patches of another size: [D, C, *size].

    FlexiViT's rule (arXiv 2212.08013, equation 4), as timm applies it: the kernel w' for which
    <w', resized patch> is nearest to <w, patch>, the pseudo-inverse of the resize's transpose.
    """
    old = tuple(kernel.shape[-2:])
    if old == size:
        return kernel
    inverse = torch.linalg.pinv(bicubic_matrix(old, size).double().T)  # [new cells, old cells]
    resized = kernel.double().flatten(2) @ inverse.T.to(kernel.device)
    return resized.unflatten(2, size).to(kernel.dtype)


class Unpatchify(nn.Module):
    """Linear layer to the values of a patch (frame, row, column, channel; channel fastest), laid
    out as an image or clip: [B, cells, D] -> [B, C, (T,) H, W].

    `smooth` adds a residual pair of 3x3 convolutions of that width, zero at the start, which
    removes the borders between patches; `conv` is a plain 3x3 convolution (TiTok). Both see frames
    one by one.
    """

    def __init__(
        self,
        patches: PatchesConfig,
        shape: Shape,
        width: int,
        smooth: int = 0,
        conv: bool = False,
    ) -> None:
        super().__init__()
        self.grid, channels = patches.grid(shape), shape.channels
        self.is_clip, self.patches = shape.is_clip, patches
        size = patches.size
        frames = patches.frames if shape.is_clip else 1
        self.proj = nn.Linear(width, frames * size * size * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else None
        self.smooth = None
        if smooth:
            self.smooth = nn.Sequential(
                nn.Conv2d(channels, smooth, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(smooth, channels, 3, padding=1),
            )

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """
        Args:
            grid: that the rows lie on, if it is not the shape's.
        """
        *_, h, w = self.grid if grid is None else grid
        p, q = self.patches.size, self.patches.frames if self.is_clip else 1
        # Frames of a clip lie beside each other in the batch until the end.
        image = rearrange(
            self.proj(x), "b (t h w) (q p r c) -> (b t q) c (h p) (w r)", h=h, w=w, p=p, r=p, q=q
        )
        if self.conv is not None:
            image = self.conv(image)
        if self.smooth is not None:
            image = image + self.smooth(image)
        if self.is_clip:
            return rearrange(image, "(b t) c h w -> b c t h w", b=len(x))
        return image

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        if self.smooth is not None:
            return self.smooth[-1].weight
        return self.proj.weight if self.conv is None else self.conv.weight
