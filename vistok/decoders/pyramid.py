"""Decoder of a list of values into an image of any size (Instella-T2I, arXiv 2506.21022).

The values and a coarse grid of copies of one mask token go through one transformer whose grid is
doubled on the way; its cells become patches. Sides are those that a condition asks for, else those
of the output space: positions are rotary, so that one list of values serves any size.
Letters: B batch, M values, h w patches, W width, D width of a value, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder
from vistok.layers.norms import NormKind, make_norm
from vistok.layers.patchify import PatchesConfig, Unpatchify
from vistok.layers.pyramid import Pyramid, PyramidConfig
from vistok.layers.transformer import init_weights


class PyramidDecoderConfig(PyramidConfig):
    kind: Literal["pyramid"] = "pyramid"
    value_norm: NormKind = "rmsnorm"
    """Norm of the values before their projection."""
    missing: Literal["refuse", "drop"] = "refuse"
    """drop: values that are missing are not attended to, which equals a shorter list; refuse: only
    whole lists can be decoded."""
    coarsest: Literal["power", "product"] = "power"
    """Of k doublings, the coarsest grid's share of rotary.extent: 1 / 2^k, or 1 / (2 k), a slip of
    Instella-T2I's code that shows from k = 3 on."""
    gain: float = Field(default=0.1, gt=0)
    """Scale of the layer to pixels at the start: images begin near grey."""

    @classmethod
    def tiny(cls) -> PyramidDecoderConfig:
        return cls(missing="drop", **cls.tiny_parts())


@register("decoder", PyramidDecoderConfig)
class PyramidDecoder(Decoder):
    any_size = True

    def __init__(
        self, config: PyramidDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        config.finest(shape)
        if len(grids) > 1:
            raise InputError(
                f"decoder kind=pyramid reads one list of values, not {len(grids)} grids; use "
                "kind: vit"
            )
        if config.missing != "refuse":
            self.prefix = "token"
        inner = config.transformer
        self.value_norm = make_norm(config.value_norm, dim, inner.norm_eps)
        self.embed = nn.Linear(dim, inner.width)
        self.mask_token = nn.Parameter(torch.randn(inner.width) * 0.02)
        times = len(config.resample_after)
        first = 2**times if config.coarsest == "power" else max(2 * times, 1)
        self.transformer = Pyramid(config, "double", first)
        patches = PatchesConfig(size=config.patch_size, positions="none")
        self.head = Unpatchify(patches, shape, inner.width)
        init_weights(self, inner)
        with torch.no_grad():
            self.head.proj.weight.mul_(config.gain)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, M, D] -> [B, C, H, W], of the sides that `condition` asks for, if it does."""
        if present is not None and self.config.missing == "refuse":
            raise InputError(
                "this decoder cannot leave values out (missing: refuse); set decoder.missing to "
                "drop and train with a length regularizer"
            )
        sides = None if condition is None else condition.sides
        finest = self.config.finest(Shape(self.shape.channels, sides or self.shape.sides))
        factor = 2 ** len(self.config.resample_after)
        coarsest = tuple(side // factor for side in finest)
        tokens = self.embed(self.value_norm(values.to(self.embed.weight.dtype)))
        rows = self.mask_token.to(tokens.dtype).expand(len(values), cells(coarsest), -1)
        taps = self.config.taps
        rows, seen = self.transformer(tokens, rows, coarsest, taps.values(), present)
        out = self.head(rows, finest).float()
        return Decoded(out, out, {"grid": rows, **{name: seen[i] for name, i in taps.items()}})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.head.last_layer
