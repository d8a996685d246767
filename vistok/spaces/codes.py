"""The codes of another tokenizer: logits over them are decoded, its decoder makes the pixels.

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
from vistok.core.draws import Draws
from vistok.layers.patchify import patch_grid


class CodesConfig(Config):
    kind: Literal["codes"] = "codes"
    codebook_size: int = Field(default=1024, ge=2)
    """K."""
    dim: int = Field(default=256, ge=1)
    """d."""
    decoder: Annotated[Any, PartOf("decoder")] | None = {"kind": "cnn"}
    """The other tokenizer's decoder; `task.init` takes it and its codebook from there. null: there
    are only logits, as in TiTok's first stage, and no pixels."""
    patch_size: int = Field(default=16, ge=1)
    """Pixels of the side of one code."""


@register("space", CodesConfig)
class Codes(nn.Module):
    def __init__(self, config: CodesConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.grid = patch_grid(image_size, config.patch_size)
        self.decoder = None
        if config.decoder is None:
            return
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.dim))
        latents = self.grid[0] * self.grid[1]
        self.decoder = build(config.decoder, image_size, latents, config.dim)

    def forward(self, pixels: Tensor, draws: Draws | None = None) -> Tensor:
        raise ValueError(
            "kind 'codes' is decoded and not read; set tokenizer.input_space to pixels"
        )

    def expected(self, logits: Tensor) -> Tensor:
        """logits [B, K, h, w] -> expected code vectors [B, h*w, d], fp32."""
        if tuple(logits.shape[1:]) != (self.config.codebook_size, *self.grid):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}; expected [B, "
                f"{self.config.codebook_size}, {self.grid[0]}, {self.grid[1]}]: set "
                "decoder.head=codes, decoder.codes and decoder.patch_size to fit `output_space`"
            )
        share = logits.float().softmax(1).flatten(2).transpose(1, 2)  # [B, h*w, K]
        return share @ self.codebook.float()

    def inverse(self, y: Tensor) -> Tensor:
        """logits [B, K, h, w] -> pixels [B, 3, H, W], unclamped."""
        if self.decoder is None:
            raise ValueError(
                "these weights decode into codes of another tokenizer and lack its decoder; "
                "give output_space.decoder and task.init the weights of that tokenizer"
            )
        return self.decoder(self.expected(y)).estimate
