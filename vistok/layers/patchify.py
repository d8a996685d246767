"""Images to rows of patches and back.

Letters: B batch, H W pixels, p patch side, h w = H/p W/p.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Convolution over patches: [B, 3, H, W] -> [B, h*w, D], row-major.

    `overlap` pixels are added to the window on each side, so that neighbours share context.
    """

    def __init__(self, patch_size: int, width: int, channels: int = 3, overlap: int = 0) -> None:
        super().__init__()
        window = patch_size + 2 * overlap
        self.proj = nn.Conv2d(channels, width, window, stride=patch_size, padding=overlap)

    def forward(self, pixels: Tensor) -> Tensor:
        return rearrange(self.proj(pixels), "b d h w -> b (h w) d")


class Unpatchify(nn.Module):
    """Linear to p*p*3 values a patch (row, column, color; color fastest), laid out as an image.

    [B, h*w, D] -> [B, 3, H, W]. `smooth` adds a zero-initialized residual 3x3 convolution pair of
    that width, which removes the borders between patches; `conv` a plain 3x3 convolution (TiTok).
    """

    def __init__(
        self,
        patch_size: int,
        width: int,
        grid: tuple[int, int],
        channels: int = 3,
        smooth: int = 0,
        conv: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.patch_size = grid, patch_size
        self.proj = nn.Linear(width, patch_size * patch_size * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else None
        self.smooth = None
        if smooth:
            self.smooth = nn.Sequential(
                nn.Conv2d(channels, smooth, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(smooth, channels, 3, padding=1),
            )

    def forward(self, x: Tensor) -> Tensor:
        h, w = self.grid
        p = self.patch_size
        image = rearrange(self.proj(x), "b (h w) (p q c) -> b c (h p) (w q)", h=h, w=w, p=p, q=p)
        if self.conv is not None:
            image = self.conv(image)
        return image if self.smooth is None else image + self.smooth(image)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        if self.smooth is not None:
            return self.smooth[-1].weight
        return self.proj.weight if self.conv is None else self.conv.weight


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """(h, w) patches of an image; ValueError if the sides are no multiples of the patch."""
    if image_size[0] % patch_size or image_size[1] % patch_size:
        raise ValueError(
            f"image_size={tuple(image_size)} is not a multiple of patch_size={patch_size}"
        )
    return image_size[0] // patch_size, image_size[1] // patch_size
