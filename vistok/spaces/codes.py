"""The codes of another tokenizer: the decoder gives logits over them, and that tokenizer's own
decoder makes the pixels.

TiTok's two-stage models and One-D-Piece predict logits over MaskGIT-VQGAN's codes ("proxy codes");
the pixels are that tokenizer's decoding of the *expected* code vector, softmax(logits) @ codebook,
so that gradients flow. Letters: B batch, K codes, h w their grid, d width of a code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.layers.conv import ConvConfig
from vistok.layers.patchify import PatchesConfig
from vistok.spaces.base import Space
from vistok.spaces.pixels import Pixels, PixelsConfig


class CodesConfig(Config):
    kind: Literal["codes"] = "codes"
    codebook_size: int = Field(default=1024, ge=2, le=2**20)
    """K, codes of the other tokenizer."""
    dim: int = Field(default=256, ge=1, le=2**14)
    """d, width of one of its code vectors."""
    decoder: Annotated[Any, PartOf("decoder")] | None = {"kind": "cnn"}
    """The other tokenizer's decoder; `task.init` takes it and its codebook from there. null: there
    are only logits, as in TiTok's first stage, and no pixels."""
    pixels: PixelsConfig = PixelsConfig(mean=0.0, std=1.0)
    """The other tokenizer's output space."""
    patch_size: int = Field(default=16, ge=1, le=2**12)
    """Pixels of the side of one code."""

    @classmethod
    def tiny(cls) -> CodesConfig:
        return cls(
            codebook_size=16,
            dim=4,
            patch_size=4,
            decoder={"kind": "cnn", "conv": ConvConfig.tiny()},
        )


@register("space", CodesConfig)
class Codes(Space):
    def __init__(self, config: CodesConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        grid = PatchesConfig(size=config.patch_size).grid(shape)
        self.shape = Shape(config.codebook_size, grid)
        self.decoder = None
        if config.decoder is None:
            return
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.dim))
        self.pixels = Pixels(config.pixels, shape)
        self.decoder = build(config.decoder, shape, (grid,), config.dim)

    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        raise InputError(
            "kind 'codes' is an output space only; set tokenizer.input_space to pixels, and losses "
            "that need no target in it"
        )

    def expected(self, logits: Tensor) -> Tensor:
        """logits [B, K, h, w] -> expected code vectors [B, h*w, d], fp32."""
        if tuple(logits.shape[1:]) != (self.shape.channels, *self.shape.sides):
            raise InputError(
                f"logits have shape {tuple(logits.shape)}; expected [B, {self.shape.channels}, "
                f"{', '.join(map(str, self.shape.sides))}], as `output_space` says"
            )
        share = logits.float().softmax(1).flatten(2).transpose(1, 2)  # [B, h*w, K]
        return share @ self.codebook.float()

    def inverse(self, y: Tensor) -> Tensor:
        """logits [B, K, h, w] -> pixels [B, 3, H, W], unclamped."""
        if self.decoder is None:
            raise InputError(
                "these weights decode into codes of another tokenizer and lack its decoder; "
                "give output_space.decoder and task.init the weights of that tokenizer"
            )
        return self.pixels.inverse(self.decoder(self.expected(y)).estimate)
