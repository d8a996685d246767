"""Resampler encoder: a fixed number of tokens that condense the cells of an image or clip.

Divot (arXiv 2412.04432): features of each frame go through a transformer over the frames of one
position, are averaged onto a coarse grid and mixed, and 64 queries read them. TokensGen (arXiv
2507.15728): queries on a grid of time, rows and columns read the latents of a VAE.
Letters: B batch, t h w the grid of patches, M cells of the memory, W their width, N tokens, D width
of the quantizer's input.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape, cells
from vistok.encoders.base import Encoder
from vistok.layers.patchify import PatchEmbed, PatchesConfig
from vistok.layers.positions import PositionTable
from vistok.layers.resampler import Resampler, ResamplerConfig
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights

Sides = tuple[Annotated[int, Field(ge=1, le=2**10)], ...]


class OverTimeConfig(Config):
    """A transformer over the frames of each position of a clip, with learned positions."""

    transformer: TransformerConfig = TransformerConfig()
    gain: float = Field(default=1.0, ge=0)
    """Scale of its output projection at the start; 0: Divot, whose first steps train that alone."""

    @classmethod
    def tiny(cls) -> OverTimeConfig:
        return cls(transformer=TransformerConfig.tiny())


class ResamplerEncoderConfig(Config):
    kind: Literal["resampler"] = "resampler"
    patches: PatchesConfig = PatchesConfig()
    """Cells that are read; `positions` are those of the memory."""
    over_time: OverTimeConfig | None = None
    """Before anything else, frames of one position see each other; null = they do not."""
    pool: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Sides (h, w) onto which each frame's cells are averaged; null = they stay."""
    norm_in: bool = False
    """LayerNorm (eps 1e-5) of the cells before their positions are added."""
    transformer: TransformerConfig | None = None
    """Mixes all cells before they are read; null = there is none."""
    queries: Sides = Field(default=(64,), min_length=1, max_length=3)
    """Grid of the tokens: (N,) for a list, or sides (h, w), of a clip (t, h, w)."""
    resampler: ResamplerConfig = ResamplerConfig()
    norm_out: bool = True
    """LayerNorm (eps 1e-5) of each token."""

    @model_validator(mode="after")
    def _agrees(self) -> ResamplerEncoderConfig:
        if math.prod(self.queries) > 2**16:
            raise InputError(f"queries={self.queries}: expected 65,536 tokens or fewer")
        if self.patches.class_token:
            raise InputError("patches.class_token=true: this encoder has none; leave it out")
        return self

    @classmethod
    def tiny(cls) -> ResamplerEncoderConfig:
        return cls(
            patches=PatchesConfig(size=4),
            transformer=TransformerConfig.tiny(),
            queries=(4,),
            resampler=ResamplerConfig.tiny(),
        )


@register("encoder", ResamplerEncoderConfig)
class ResamplerEncoder(Encoder):
    def __init__(self, config: ResamplerEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of the patches'.
            dim: D, the width of a token.
        """
        super().__init__()
        self.config, patches, mixer = config, config.patches, config.transformer
        self.grid = patches.grid(shape)
        if len(config.queries) > len(self.grid):
            raise InputError(
                f"queries={config.queries}: the patches have {len(self.grid)} axes; expected as "
                "many sides or fewer"
            )
        width = config.resampler.width if mixer is None else mixer.width
        first, self.over_time = width, None
        if config.over_time is not None:
            if not shape.is_clip:
                raise InputError("over_time needs clips; set tokenizer.frames, or leave it out")
            inner = config.over_time.transformer
            first, self.over_time = inner.width, Transformer(inner)
            self.time_positions = PositionTable("learned", self.grid[:1], first)
            self.time_out = nn.Linear(first, width)
        self.patch_embed = PatchEmbed(patches, shape, first)
        if config.pool is not None and any(
            small > side for small, side in zip(config.pool, self.grid[-2:], strict=True)
        ):
            raise InputError(
                f"pool={config.pool} of cells on a grid {self.grid}; expected fewer of them"
            )
        memory = self.grid if config.pool is None else (*self.grid[:-2], *config.pool)
        self.norm_in = nn.LayerNorm(width, 1e-5) if config.norm_in else nn.Identity()
        self.positions = PositionTable(patches.positions, memory, width, patches.position_base)
        self.transformer = None if mixer is None else Transformer(mixer)
        init_weights(self, TransformerConfig() if mixer is None else mixer)
        if config.over_time is not None:
            init_weights(self.over_time, config.over_time.transformer)
            nn.init.zeros_(self.time_out.bias)
            self.time_out.weight.data.mul_(config.over_time.gain)
        self.resampler = Resampler(config.resampler, width, config.queries, memory)
        self.proj = nn.Linear(config.resampler.width, dim)
        self.norm_out = nn.LayerNorm(dim, 1e-5) if config.norm_out else nn.Identity()
        self.grids, self.count = (config.queries,), cells(config.queries)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, (T,) H, W] -> latents [B, N, D]."""
        memory = self.norm_in(self._cells(x))
        memory = self.positions(memory)
        if self.transformer is not None:
            memory = self.transformer(memory)
        states = self.resampler(memory)
        values = self.norm_out(self.proj(states)).float()
        return Latents(values, self.grids, {"latents": states, "patches": memory})

    def _cells(self, x: Tensor) -> Tensor:
        """The cells [B, M, W] before their positions are added."""
        y, (h, w) = self.patch_embed(x), self.grid[-2:]
        if self.over_time is not None:
            y = rearrange(y, "b (t n) c -> (b n) t c", n=h * w)
            y = self.time_out(self.over_time(self.time_positions(y)))
            y = rearrange(y, "(b n) t c -> b (t n) c", n=h * w)
        if self.config.pool is None:
            return y
        maps = rearrange(y, "b (t h w) c -> (b t) c h w", h=h, w=w)
        pooled = F.adaptive_avg_pool2d(maps, self.config.pool)
        return rearrange(pooled, "(b t) c h w -> b (t h w) c", b=len(x))
