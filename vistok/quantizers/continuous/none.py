"""No bottleneck: tokens are the latents themselves (plain autoencoders such as VFRTok's release).

Tokens are continuous: no codes, no bytes, no pFID.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.quantizers.base import Quantizer


class NoneConfig(Config):
    kind: Literal["none"] = "none"
    dim: int = Field(default=16, ge=1, le=2**14)
    """Channels of a token."""

    @classmethod
    def tiny(cls) -> NoneConfig:
        return cls(dim=4)


@register("quantizer", NoneConfig)
class NoQuantizer(Quantizer):
    remedy = "continuous latents have no codebook"

    def __init__(self, config: NoneConfig) -> None:
        super().__init__()
        self.latent_dim = self.value_dim = config.dim
        self.vocab = ()
        self.loss_weights = {}

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        return Quantized(latents.values, latents.values, None, None, {})

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        raise InputError("continuous latents have no codes to look up; decode their values")

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        raise InputError("continuous latents have no neighboring codes")
