"""The image half of a model of images and texts, as its own release builds it: CLIP's ViTs (arXiv
2103.00020), SigLIP's (2303.15343), ViTamin (2404.02132).

They differ in words that are options here: patches or convolutions in front, a class token, a norm
before the first block, a bias of the patches. Another grid than that of the position table reads
the table resized. Letters: B batch, H W pixels, h w cells of the grid, n their number, D width.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Shape, cells
from vistok.layers.mbconv import STRIDE, MbConvConfig, MbConvStem
from vistok.layers.norms import make_norm
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.runtime.precision import no_autocast


class VisionTowerConfig(Config):
    """Sizes and switches of a tower."""

    patch: int = Field(default=16, ge=1, le=2**12)
    """Pixels of a patch's side; the last pixels of an image that fill no patch are not seen."""
    patch_bias: bool = False
    """Bias of the patches; CLIP has none, SigLIP has one."""
    stem: MbConvConfig | None = None
    """Convolutions in the place of patches, whose cells have 16 pixels (ViTamin)."""
    positions: int | None = Field(default=14, ge=1, le=2**10)
    """Cells of a side of the learned position table, at which it was trained; null = there is none
    (ViTamin, whose convolutions know)."""
    class_token: bool = True
    """A learned token in front of the cells; SigLIP and ViTamin have none."""
    norm_in: bool = True
    """A norm in front of the first block (CLIP)."""
    mlp_norm: bool = False
    """A second norm in front of each feed-forward layer (ViTamin)."""
    transformer: TransformerConfig = TransformerConfig(
        **{"width": 768, "depth": 12, "heads": 12, "mlp": "quick_gelu", "norm_eps": 1e-5}
    )
    """SigLIP's features that others read are those in front of its last block: one block less, and
    norm_out=false."""

    @classmethod
    def tiny(cls) -> VisionTowerConfig:
        return cls(patch=4, positions=2, transformer=TransformerConfig.tiny())

    @model_validator(mode="after")
    def _agrees(self) -> VisionTowerConfig:
        if self.stem is not None and self.patch != STRIDE:
            raise InputError(f"patch={self.patch}: cells of a stem have {STRIDE} pixels; give that")
        if self.stem is not None and self.patch_bias:
            raise InputError("patch_bias=true with a stem, which has no patches; leave it out")
        return self

    def grid(self, shape: Shape) -> Grid:
        """Cells (h, w) of an image; InputError for a clip, or a side without a whole cell."""
        if shape.is_clip:
            raise InputError(
                f"a vision tower takes images, not clips of {shape.frames} frames; use kind: vit"
            )
        if self.stem is not None and any(side % STRIDE for side in shape.sides):
            raise InputError(
                f"sides={shape.sides} are no multiples of {STRIDE}, the pixels of a stem's cell; "
                "use another size"
            )
        if min(shape.sides) < self.patch:
            raise InputError(f"sides={shape.sides} are shorter than patch={self.patch}")
        return tuple(side // self.patch for side in shape.sides)


class VisionTower(nn.Module):
    """Normalized images [B, C, H, W] -> states [B, n, D] of the cells, row by row."""

    def __init__(self, config: VisionTowerConfig, shape: Shape) -> None:
        """
        Args:
            shape: of an image; others of as many channels can be read, too.
        """
        super().__init__()
        self.config, inner = config, config.transformer
        self.grid, width = config.grid(shape), inner.width
        if config.stem is None:
            self.patches = nn.Conv2d(
                shape.channels, width, config.patch, config.patch, bias=config.patch_bias
            )
        else:
            self.patches = MbConvStem(config.stem, shape.channels, width)
        self.class_token: nn.Parameter | None = None
        if config.class_token:
            self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.table: nn.Parameter | None = None
        if config.positions is not None:
            rows = config.class_token + config.positions**2
            self.table = nn.Parameter(torch.randn(rows, width) * width**-0.5)
        norm = inner.norm if config.norm_in else "none"
        self.norm_in = make_norm(norm, width, inner.norm_eps, inner.norm_affine)
        self.transformer = Transformer(inner)
        if config.mlp_norm:
            for block in self.transformer.blocks:
                more = make_norm(inner.norm, width, inner.norm_eps, inner.norm_affine)
                block.norm_mlp = nn.Sequential(block.norm_mlp, more)
        init_weights(self, inner)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x)
        grid = tuple(y.shape[2:])
        y = y.flatten(2).transpose(1, 2)
        lead = int(self.config.class_token)
        if lead:
            y = torch.cat([self.class_token.to(y.dtype).expand(len(y), 1, -1), y], dim=1)
        if self.table is not None:
            y = y + resized_table(self.table, grid, lead).to(y.dtype)
        return self.transformer(self.norm_in(y), only=slice(lead, lead + cells(grid)))


def resized_table(table: Tensor, grid: Grid, lead: int) -> Tensor:
    """A position table [lead + n, D] of a square, resized to a grid: [lead + h*w, D].

    DINO's rule (arXiv 2104.14294), which many copied: bicubic without antialiasing, by the scale
    (side + 0.1) / side of the table, so that rounding never loses a cell. The `lead` rows in front
    stay; a table of that very grid stays as it is.
    """
    side = math.isqrt(len(table) - lead)
    if grid == (side, side):
        return table
    scale = tuple((part + 0.1) / side for part in grid)
    with no_autocast(table.device):
        maps = table[lead:].float().T.unflatten(1, (side, side))[None]
        maps = nn.functional.interpolate(maps, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:lead], maps[0].flatten(1).T.to(table.dtype)])


def tanh_head(width: int, out: int) -> nn.Sequential:
    """[..., width] -> [..., out]: linear, tanh, linear; weights begin with std 0.02, biases 0."""
    head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))
    for layer in (head[0], head[2]):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return head
