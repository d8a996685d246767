"""Region encoder: regions of an image of equal complexity, one token each, with its place and shape
in it (GPSToken, arXiv 2509.01109).

Every region begins as a Gaussian in its middle. With `gaussians`, a token's first five numbers are
that Gaussian, moved and reshaped by the network: sigma_x, sigma_y, rho, x, y; the others say what
is there, and the decoder is `splat`.
The number of regions is free: no weight depends on it. Tokens are a set in the order of the cuts,
which is another one for each image.
Letters: B batch, k tiles of a side, n regions of a tile, c features, D numbers of a token, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import roi_align

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.conv import ConvConfig, Level
from vistok.layers.regions import gaussians, grey_of, halves, partition
from vistok.layers.splat import GEOMETRY
from vistok.layers.tiles import cut
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.runtime.precision import no_autocast


class RegionsConfig(Config):
    kind: Literal["regions"] = "regions"
    count: int = Field(default=16, ge=1, le=2**14)
    """n, regions of a tile (of 256 pixels: 64, 128 or 256); other numbers can be asked for when an
    image is encoded, of continuous tokens."""
    gaussians: bool = False
    """Tokens begin with five numbers that say where and how large their region is, between the
    bounds of an image, and the decoder reads them so; false: tokens are features alone, for any
    quantizer and decoder."""
    tiles: int = Field(default=1, ge=1, le=64)
    """k: images are cut into k x k tiles, each encoded alone into n tokens, so that a network of
    256 pixels reads images of 512 (k = 2). The decoder has as many."""
    least: int = Field(default=8, ge=1, le=2**12)
    """A region is halved while one of its sides is larger than least + 1 pixels."""
    power: float = Field(default=2.5, ge=0, le=16)
    """Power of the entropy in a region's complexity: 0 makes them equally large."""
    stem_width: int = Field(default=128, ge=1, le=2**14)
    """Channels of the map that regions are read from, at full resolution."""
    stem_blocks: int = Field(default=2, ge=0, le=64)
    """Its residual blocks."""
    norm_groups: int = Field(default=32, ge=1, le=2**14)
    """Groups of their norms."""
    norm_eps: float = Field(default=1e-6, gt=0)
    cells: int = Field(default=8, ge=1, le=64)
    """A region is read as cells x cells means (RoIAlign), whatever its size."""
    transformer: TransformerConfig = TransformerConfig(
        width=512, depth=30, heads=8, norm_eps=1e-5, norm_out=False
    )
    """Tokens see each other; each block first adds what it reads of the token's cells."""

    @classmethod
    def tiny(cls) -> RegionsConfig:
        return cls(
            count=6,
            least=2,
            stem_width=8,
            stem_blocks=1,
            norm_groups=4,
            cells=3,
            transformer=TransformerConfig.tiny(),
        )


@register("encoder", RegionsConfig)
class RegionEncoder(Encoder):
    any_count = True

    def __init__(self, config: RegionsConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space: RGB of -1..1, sides multiples of the tiles'.
            dim: D, the width of a token: c, or 5 + c with its Gaussian.
        """
        super().__init__()
        self.config, mixer = config, config.transformer
        if shape.channels != 3 or shape.is_clip:
            raise InputError(
                f"encoder.kind=regions looks for edges in images of 3 colors, not in {shape}; "
                "expected input_space.kind=pixels and no frames"
            )
        own = dim - GEOMETRY if config.gaussians else dim
        if own < 1:
            raise InputError(
                f"encoder.gaussians=true: tokens of {dim} numbers, the first {GEOMETRY} of them a "
                f"Gaussian; expected a quantizer of dim {GEOMETRY + 1} or more"
            )
        self.sides = shape.sides
        self.check_count(config.count * config.tiles**2)
        self.grids = ((config.count * config.tiles**2,),)
        conv = ConvConfig(
            channels=config.stem_width,
            channel_mult=(1,),
            blocks=config.stem_blocks,
            norm_groups=config.norm_groups,
            norm_eps=config.norm_eps,
        )
        wide = config.stem_width
        self.conv_in = nn.Conv2d(3, wide, 3, padding=1)
        self.stem = Level(conv, wide, wide)
        self.cells = nn.Conv2d(wide, mixer.width, 1)
        self.start = nn.Parameter(torch.randn(mixer.width))
        self.place = nn.Sequential(
            nn.Linear(GEOMETRY, mixer.width), nn.GELU(), nn.Linear(mixer.width, mixer.width)
        )
        self.pools = nn.ModuleList(nn.Linear(config.cells**2, 1) for _ in range(mixer.depth))
        self.transformer = Transformer(mixer)
        self.features = nn.Linear(mixer.width, own)
        init_weights(self.transformer, mixer)
        self.geometry = None
        if config.gaussians:
            self.geometry = nn.Linear(mixer.width, GEOMETRY)
            nn.init.zeros_(self.geometry.weight)
            nn.init.zeros_(self.geometry.bias)

    def check_count(self, count: int) -> int:
        """`count` if images can be cut into so many regions in all; InputError otherwise."""
        config, parts = self.config, self.config.tiles**2
        if any(side % config.tiles for side in self.sides):
            raise InputError(
                f"image_size={self.sides} is not a multiple of encoder.tiles={config.tiles}"
            )
        if count < 1 or count % parts:
            raise InputError(f"{count} tokens of {parts} tiles; expected a multiple of {parts}")
        height, width = (side // config.tiles for side in self.sides)
        most, thin = halves(height, width, config.least)
        if count // parts > most:
            raise InputError(
                f"{count // parts} regions of {height}x{width} pixels; expected at most {most}, or "
                f"a smaller encoder.least than {config.least}"
            )
        if thin < 2:
            raise InputError(
                f"encoder.least={config.least} cuts {height}x{width} pixels into regions of one "
                "pixel, which have no extent; use a larger one"
            )
        return count

    def forward(
        self, x: Tensor, condition: Condition | None = None, count: int | None = None
    ) -> Latents:
        """x [B, 3, H, W] -> latents [B, k^2 n, D], the tokens of the tiles row by row.

        Args:
            count: tokens of an image; None = those of the config.
        """
        total = self.grids[0][0] if count is None else count
        parts = self.config.tiles**2
        values, rows = self.read(cut(x, self.config.tiles), total // parts)
        values, rows = (part.unflatten(0, (-1, parts)).flatten(1, 2) for part in (values, rows))
        return Latents(values, ((total,),), {"latents": rows})

    def read(self, tiles: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Tiles [b, 3, h, w] -> (tokens [b, n, D] fp32 in the tile's own coordinates, states
        [b, n, W] that they are read from)."""
        config = self.config
        start, boxes = self.regions(tiles, count)
        y = self.stem(self.conv_in(tiles.to(self.conv_in.weight.dtype)))
        seen = self.cells(self.look(y, boxes).to(y.dtype)).flatten(2)  # [b n, W, cells]
        rows = self.start + self.place(start.to(self.start.dtype))
        for pool, block in zip(self.pools, self.transformer.blocks, strict=True):
            rows = block(rows + pool(seen).view(len(tiles), count, config.transformer.width))
        rows = self.transformer.norm(rows)
        values = self.features(rows).float()
        if self.geometry is not None:
            layer = self.geometry
            with no_autocast(rows.device):
                moved = F.linear(rows.float(), layer.weight.float(), layer.bias.float())
                values = torch.cat([reshaped(start, moved), values], -1)
        return values, rows

    def regions(self, tiles: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(Gaussians [b, n, 5], boxes [b, n, 4] of -1..1) of tiles [b, 3, h, w], fp32."""
        config = self.config
        boxes = partition(grey_of(tiles), count, config.least, config.power)
        return gaussians(boxes, *tiles.shape[2:])

    def look(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Cells [b n, C, cells, cells] fp32 of boxes [b, n, 4] in maps [b, C, h, w]."""
        height, width = maps.shape[2:]
        sides = torch.tensor([width, height, width, height], device=boxes.device) - 1
        number = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
        number = number[:, None, None].expand(-1, boxes.shape[1], 1)
        rois = torch.cat([number, sides * (boxes + 1) / 2], -1).flatten(0, 1)
        with no_autocast(maps.device):
            side = self.config.cells
            return roi_align(maps.float(), rois, side, sampling_ratio=-1, aligned=True)


def reshaped(start: Tensor, moved: Tensor) -> Tensor:
    """Gaussians [..., 5], moved by numbers in logit space: sigmas stay in 0..1, rho, x and y in
    -1..1."""
    sigmas = (start[..., :2].logit() + moved[..., :2]).sigmoid()
    others = ((start[..., 2:] + 1) / 2).logit() + moved[..., 2:]
    return torch.cat([sigmas, 2 * others.sigmoid() - 1], -1)
