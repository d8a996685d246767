"""Decoder that expands latents into features first: a causal transformer in raster order, whose
rows a second, bidirectional one turns into pixels (MingTok, arXiv 2510.06590).

The features, not the latents, are what pixels are made of, and what a language model reads there.
Letters: B batch, M values on a grid of h x w, D their width, W width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder
from vistok.layers.patchify import PatchesConfig, Unpatchify
from vistok.layers.positions import PositionTable
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


class ExpandingConfig(Config):
    kind: Literal["expanding"] = "expanding"
    expand: TransformerConfig = TransformerConfig(width=1024, depth=24, heads=16)
    """The causal transformer: value i sees values 0..i."""
    shortcut: bool = True
    """Each channel of a value, repeated to W channels, is added to the projection of the value; W
    is a multiple of D."""
    split: int = Field(default=1, ge=1, le=64)
    """Each row of features becomes split x split cells for the second transformer (MingTok: 2)."""
    transformer: TransformerConfig = TransformerConfig(width=1024, depth=24, heads=16)
    """The bidirectional transformer; its width is its own."""
    patches: PatchesConfig = PatchesConfig(size=16, positions="learned")
    """Patches that it writes, one per cell; positions of both transformers' rows."""
    smooth: int = Field(default=0, ge=0, le=2**10)
    """Width of a residual pair of convolutions over the image, zero at the start; 0 = none."""

    @model_validator(mode="after")
    def _agrees(self) -> ExpandingConfig:
        if self.patches.class_token:
            raise InputError("patches.class_token=true: this decoder has none; leave it out")
        return self

    @classmethod
    def tiny(cls) -> ExpandingConfig:
        small = TransformerConfig.tiny()
        patches = PatchesConfig(size=2, positions="learned")
        return cls(expand=small, transformer=small, patches=patches, shortcut=False, split=2)


@register("decoder", ExpandingConfig)
class ExpandingDecoder(Decoder):
    """Images of all values; tap `semantic` [B, M, W]: the features, for losses."""

    def __init__(
        self, config: ExpandingConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space; its sides are those of `split` x `split` patches per value.
            grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config = config
        fine, split, width = config.patches.grid(shape), config.split, config.expand.width
        if len(fine) != 2:
            raise InputError(f"decoder expanding makes images, not clips of {shape.frames} frames")
        count = sum(map(cells, grids))
        self.grid = tuple(side // split for side in fine)
        if any(side % split for side in fine) or count != cells(self.grid):
            raise InputError(
                f"decoder expanding: {count} values, each of {split} x {split} patches, do not "
                f"cover {fine[0]} x {fine[1]} patches; change split or patches.size"
            )
        self.repeat = width // dim if config.shortcut else 0
        if config.shortcut and width % dim:
            raise InputError(
                f"shortcut=true repeats {dim} channels of a value to expand.width={width}; "
                "expected a multiple of them, or shortcut=false"
            )
        positions, base = config.patches.positions, config.patches.position_base
        self.embed = nn.Linear(dim, width)
        self.positions = PositionTable(positions, self.grid, width, base)
        self.expand = Transformer(config.expand)
        inner = config.transformer.width
        self.split = nn.Linear(width, split * split * inner)
        self.fine_positions = PositionTable(positions, fine, inner, base)
        self.transformer = Transformer(config.transformer)
        self.unpatchify = Unpatchify(config.patches, shape, inner, config.smooth)
        for module, its in ((self.expand, config.expand), (self.transformer, config.transformer)):
            init_weights(module, its)

    def features(self, values: Tensor) -> Tensor:
        """values [B, M, D] -> features [B, M, W]; the first m of them depend on m values alone."""
        values = values.to(self.embed.weight.dtype)
        x = self.embed(values)
        if self.repeat:
            x = x + values.repeat_interleave(self.repeat, dim=-1)
        return self.expand(self.positions(x), causal=True)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        if present is not None:
            raise InputError("decoder expanding needs all values; decode whole sequences")
        features, split = self.features(values), self.config.split
        h, w = self.grid
        rows = rearrange(
            self.split(features), "b (h w) (y x c) -> b (h y w x) c", h=h, w=w, y=split, x=split
        )
        y = self.unpatchify(self.transformer(self.fine_positions(rows))).float()
        return Decoded(y, y, {"semantic": features})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.unpatchify.last_layer
