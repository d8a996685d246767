"""Vision transformers of the presets: DINOv2, MAE, CLIP's and SigLIP's image towers, exactly.

One network with four switches: class token, a norm before the first block (CLIP), attention pooling
(SigLIP), a projection (CLIP). Its names in files are in `vistok.frozen.preset_layouts`. Positions
are resized when the file is read, by the rule of the program that a preset follows:

antialias  bicubic with antialias, to the grid (timm)
offset     bicubic without antialias, by the scale (grid + 0.1) / native grid (DINOv2's hub code)

Letters: B batch, H W pixels, D width, n patches, P width of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.layers.mlp import MlpKind, make_mlp
from vistok.layers.transformer import Transformer, TransformerConfig
from vistok.runtime.precision import no_autocast

Positions = Literal["antialias", "offset"]


@dataclass(frozen=True)
class ViTShape:
    """Sizes and switches of a published network."""

    width: int
    depth: int
    heads: int
    patch: int
    native: int  # side of the images that its position table is for
    hidden: int  # of the feed-forward layers
    mlp: MlpKind = "gelu"
    eps: float = 1e-6
    layer_scale: bool = False
    class_token: bool = True
    norm_pre: bool = False  # CLIP: a norm before the first block, and no bias of the patches
    attention_pool: bool = False  # SigLIP
    projection: int | None = None  # CLIP: width of the projected class token

    @property
    def dim(self) -> int:
        """P, width of the features."""
        return self.width if self.projection is None else self.projection


class AttentionPool(nn.Module):
    """One learned query looks at all tokens, then a feed-forward layer: [B, n, D] -> [B, D]."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=shape.eps)
        self.mlp = make_mlp(shape.mlp, width, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        asks = self.q(self.latent).expand(len(x), -1, -1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (asks, *self.kv(x).chunk(2, dim=-1))
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = self.proj(y)
        return (y + self.mlp(self.norm(y)))[:, 0]


class PresetViT(nn.Module):
    """Normalized images [B, 3, side, side] -> features [B, P].

    A side that is no multiple of the patches is padded with zeros at the right and the bottom,
    after normalization (timm's `dynamic_img_pad`).
    """

    def __init__(self, shape: ViTShape, side: int, positions: Positions) -> None:
        super().__init__()
        self.shape, self.rule = shape, positions
        self.grid = -(-side // shape.patch)
        cells = (shape.native // shape.patch) ** 2
        patches = nn.Conv2d(
            3, shape.width, shape.patch, stride=shape.patch, bias=not shape.norm_pre
        )
        self.patch_embed = nn.ModuleDict({"proj": patches})
        self.cls_token = None
        if shape.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.class_token + cells, shape.width))
        self.norm_pre = nn.Identity()
        if shape.norm_pre:
            self.norm_pre = nn.LayerNorm(shape.width, eps=shape.eps)
        self.transformer = Transformer(
            TransformerConfig(
                width=shape.width,
                depth=shape.depth,
                heads=shape.heads,
                mlp=shape.mlp,
                mlp_ratio=shape.hidden / shape.width,
                norm_eps=shape.eps,
                layer_scale=1.0 if shape.layer_scale else None,
            )
        )
        self.attn_pool = AttentionPool(shape) if shape.attention_pool else None
        self.head = None
        if shape.projection is not None:
            self.head = nn.Linear(shape.width, shape.projection, bias=False)
        self.register_buffer("table", None, persistent=False)  # positions of this side: `ready`

    def ready(self) -> None:
        """Called once the weights are there: resizes the position table to the grid."""
        with torch.no_grad():
            self.table = resized(
                self.pos_embed.float(), self.grid, self.rule, lead=int(self.shape.class_token)
            )

    def forward(self, x: Tensor) -> Tensor:
        more = self.grid * self.shape.patch - x.shape[-1]
        if more:
            x = F.pad(x, (0, more, 0, more))
        y = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)  # [B, n, D]
        if self.cls_token is not None:
            y = torch.cat([self.cls_token.expand(len(y), -1, -1), y], dim=1)
        y = self.transformer(self.norm_pre(y + self.table))
        y = y[:, 0] if self.attn_pool is None else self.attn_pool(y)
        return y if self.head is None else self.head(y)


def resized(table: Tensor, grid: int, rule: Positions, lead: int) -> Tensor:
    """A position table [1, lead + n, D] of a square grid -> [1, lead + grid**2, D] by a rule.

    The `lead` rows in front stay; a table of that very grid stays as it is.
    """
    front, cells = table[:, :lead], table[:, lead:]
    old = round(cells.shape[1] ** 0.5)
    if old == grid:
        return table
    maps = cells.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    with no_autocast(table.device):
        if rule == "offset":
            scale = (grid + 0.1) / old
            maps = F.interpolate(maps, scale_factor=(scale, scale), mode="bicubic")
        else:
            maps = F.interpolate(maps, size=(grid, grid), mode="bicubic", antialias=True)
    return torch.cat([front, maps.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
