"""Logits over the codes of another tokenizer (TiTok's proxy codes, arXiv 2406.07550).

Letters: B batch, h w grid, W width, K codes.
"""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.heads.base import Head
from vistok.layers.patchify import PatchesConfig


class CodesHeadConfig(Config):
    kind: Literal["codes"] = "codes"


@register("head", CodesHeadConfig)
class CodesHead(Head):
    """Linear -> tanh -> Linear; [B, h*w, W] -> [B, K, h, w]."""

    def __init__(
        self, config: CodesHeadConfig, patches: PatchesConfig, shape: Shape, width: int
    ) -> None:
        super().__init__()
        if patches.size != 1:
            raise InputError(
                f"decoder.patches.size={patches.size}, but head 'codes' gives one row of logits to "
                "each code; set it to 1 (output_space.patch_size says how many pixels a code has)"
            )
        self.grid = shape.sides
        self.up = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(2 * width, shape.channels)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(self.up(x).tanh()), "b (h w) k -> b k h w", h=self.grid[0])

    @property
    def last_layer(self) -> nn.Parameter:
        return self.proj.weight
