"""A transformer over a list of tokens and a grid of cells that is halved or doubled between blocks.

Instella-T2I's trunk (arXiv 2506.21022): tokens first, then the cells of an image, row by row. All
positions are rotary: token i is at (i, 0, 0), the cell of row r and column c at (0, r, c), so
there is no table that a size is built into. Halving and doubling are DC-AE's, with shortcuts that
have no weights (arXiv 2410.10733).
Letters: B batch, N tokens, h w grid of cells, L = N + h w, W width, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Shape, cells
from vistok.layers.masks import joined
from vistok.layers.norms import make_norm
from vistok.layers.patchify import LARGEST
from vistok.layers.positions import MixedTables, axis_angles, grid_positions
from vistok.layers.transformer import Block, TransformerConfig, check_taps

Channels = Annotated[int, Field(ge=0, le=2**12, multiple_of=2)]
Number = Annotated[int, Field(ge=1, le=512)]


class RotaryConfig(Config):
    """Positions of tokens and cells."""

    channels: tuple[Channels, Channels, Channels] = (8, 28, 28)
    """Channels of a head that turn with the number of a token, and with row and column of a cell;
    even, and together the width of a head."""
    base: float = Field(default=10000.0, gt=1)
    pairing: Literal["adjacent", "mixed"] = "adjacent"
    """Channels that turn together: adjacent ones (2i, 2i+1); or mixed, the tables of adjacent
    channels applied to channels c and c + d/2, a slip that Instella-T2I's weights depend on."""
    extent: float | None = Field(default=None, gt=0, le=2**20)
    """Sides in pixels of a square on which rows and columns of an image of any size are stretched
    (Instella-T2I: 1024), so that one position means one place of the image; null = integers."""


class PyramidConfig(Config):
    """Patches of an image, and the trunk."""

    patch_size: int = Field(default=16, ge=1, le=2**12)
    """Pixels of a side."""
    transformer: TransformerConfig = TransformerConfig(
        width=768, depth=12, heads=12, mlp="swiglu", norm="rmsnorm", qk_norm=True, bias=False
    )
    rotary: RotaryConfig = RotaryConfig()
    resample_after: tuple[Number, ...] = Field(default=(), max_length=12)
    """Numbers of the blocks (the first is 1) behind which an encoder halves the grid and a decoder
    doubles it; a decoder begins on the coarsest grid."""
    taps: dict[str, int] = Field(default_factory=dict)
    """Features for losses: name -> number of the block whose states are given, before the grid is
    resampled: the latents of an encoder, the cells of a decoder."""

    @model_validator(mode="after")
    def _agrees(self) -> PyramidConfig:
        head, channels = self.transformer.width // self.transformer.heads, self.rotary.channels
        if sum(channels) != head:
            raise InputError(
                f"rotary.channels={channels} add up to {sum(channels)}; expected {head}, the width "
                "of a head"
            )
        last, after = self.transformer.depth, self.resample_after
        if list(after) != sorted(set(after)) or (after and after[-1] > last):
            raise InputError(
                f"resample_after={after}: expected rising numbers of blocks, each in 1..{last}"
            )
        check_taps(self.taps, self.transformer)
        return self

    @property
    def stride(self) -> int:
        """Pixels of a side of a cell of the coarsest grid."""
        return self.patch_size * 2 ** len(self.resample_after)

    def finest(self, shape: Shape) -> Grid:
        """Patches (h, w) of an image; InputError for a clip or sides that do not fit."""
        if shape.is_clip:
            raise InputError(
                f"kind=pyramid takes images, not clips of {shape.frames} frames; use kind: vit"
            )
        if any(side % self.stride or side < 1 for side in shape.sides):
            raise InputError(
                f"sides={shape.sides} are no multiples of {self.stride} (patch_size="
                f"{self.patch_size}, resampled {len(self.resample_after)} times); change one of "
                "them"
            )
        grid = tuple(side // self.patch_size for side in shape.sides)
        if cells(grid) > LARGEST:
            raise InputError(
                f"sides={shape.sides}: {cells(grid):,} patches; expected {LARGEST:,} or fewer: "
                "ask for a smaller image"
            )
        return grid

    @classmethod
    def tiny_parts(cls) -> dict:
        """Options of a tiny part."""
        trunk = {**TransformerConfig.tiny().model_dump(), "depth": 2, "mlp": "swiglu"}
        trunk |= {"norm": "rmsnorm", "qk_norm": True, "bias": False}
        return {
            "patch_size": 2,
            "transformer": TransformerConfig(**trunk),
            "rotary": RotaryConfig(channels=(4, 2, 2), pairing="mixed", extent=16.0),
            "resample_after": (1,),
        }


class Halve(nn.Module):
    """3x3 convolution of stride 2, plus the means of groups of four channels of 2x2 blocks laid
    out as channels: [B, W, h, w] -> [B, W, h/2, w/2]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))  # [B, W, 4, h/2, w/2]
        return self.conv(x) + blocks.mean(2)


class Double(nn.Module):
    """3x3 convolution to the channels of 2x2 blocks, plus each channel four times, laid out as
    blocks: [B, W, h, w] -> [B, W, 2h, 2w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) + x.repeat_interleave(4, dim=1), 2)


class Pyramid(nn.Module):
    """Blocks over tokens and cells, with a resampled grid behind some of them, and a final norm."""

    def __init__(
        self, config: PyramidConfig, way: Literal["halve", "double"], first: int = 1
    ) -> None:
        """
        Args:
            way: what is done to the grid. first: how many patches a side of its first cells has.
        """
        super().__init__()
        inner, times = config.transformer, len(config.resample_after)
        self.config, self.way = config, way
        self.blocks = nn.ModuleList(Block(inner, i) for i in range(inner.depth))
        made = Halve if way == "halve" else Double
        self.resamplers = nn.ModuleList(made(inner.width) for _ in range(times))
        self.norm = make_norm(inner.norm, inner.width, inner.norm_eps)
        self.scale: float | None = None  # cells of a side that positions are stretched on
        if config.rotary.extent is not None:
            finest = config.rotary.extent / config.patch_size
            self.scale = finest if first == 1 else finest // first

    def forward(
        self,
        tokens: Tensor,
        rows: Tensor,
        grid: Grid,
        taps: Collection[int] = (),
        present: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The tokens [B, N, W] at the end (way=halve), or the cells [B, h' w', W] (way=double).

        Args:
            tokens: [B, N, W]. rows: [B, h w, W], cells row by row. grid: (h, w) of them.
            taps: numbers of blocks; their tokens, or cells, are the second thing that is given.
            present: [B, N] bool, tokens that are attended to; None = all.
        """
        count, scale, seen = tokens.shape[1], self.scale, {}
        wanted = slice(0, count) if self.way == "halve" else slice(count, None)
        x = torch.cat([tokens, rows], dim=1)
        places = self._places(count, grid, scale, present, x)
        resamplers = dict(zip(self.config.resample_after, self.resamplers, strict=True))
        if self.way == "halve":  # nobody reads the cells behind the last block
            resamplers.pop(len(self.blocks), None)
        for number, block in enumerate(self.blocks, 1):
            rotary, mask = places
            x = block(x, rotary, mask, only=wanted if number == len(self.blocks) else None)
            if number == len(self.blocks):
                wanted = slice(None)
            if number in taps:
                seen[number] = x[:, wanted]
            if number not in resamplers:
                continue
            first = 0 if number == len(self.blocks) else count
            maps = x[:, first:].transpose(1, 2).unflatten(2, grid)
            maps = resamplers[number](maps)
            x = torch.cat([x[:, :first], maps.flatten(2).transpose(1, 2)], dim=1)
            grid = tuple(maps.shape[2:])
            if scale is not None:
                scale = scale // 2 if self.way == "halve" else scale * 2
            if number < len(self.blocks):
                places = self._places(count, grid, scale, present, x)
        return self.norm(x), seen

    def _places(
        self, count: int, grid: Grid, scale: float | None, present: Tensor | None, x: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Rotary tables of all L positions, and the mask of those that are attended to."""
        config, device = self.config.rotary, x.device
        ids = torch.zeros(count + cells(grid), 3, device=device)
        ids[:count, 0] = torch.arange(count, device=device)
        place = grid_positions(grid).to(device)  # [h w, 2]
        if scale is not None:
            last = torch.tensor([max(side - 1, 1) for side in grid], device=device)
            place = place / last * (scale - 1)
        ids[count:, 1:] = place
        angles = axis_angles(ids, config.channels, config.base)
        # fp32 wherever autocast would take less: bf16 cannot tell positions above 256 apart.
        if config.pairing == "mixed":
            rotary = MixedTables.of(angles)
            rotary = MixedTables(rotary.cos.float(), rotary.sin.float())
        else:
            rotary = angles.cos().float(), angles.sin().float()
        if present is None:
            return rotary, None
        return rotary, joined(present, cells(grid), batch=len(x), device=device)
