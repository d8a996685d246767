"""Two codebooks with one shared index (TokenFlow, arXiv 2412.03069).

A latent is a semantic part and a pixel part, side by side; an index selects a row of each table.
Parts are normalized one by one, and the index is the one whose rows are nearest together:

    k = argmin_k  sum_p  w_p |z_p / |z_p| - e_kp / |e_kp||^2,       value = the rows side by side

so that a value has length sqrt(2). Losses, entropy terms and straight-through are those of `vq`, on
all channels together. Both tables are kept as one, semantic channels first.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.quantizers.codebook import NORM_EPS


class DualConfig(VQConfig):
    kind: Literal["dual"] = "dual"
    codebook_size: int = Field(default=32768, ge=2, le=2**22)
    """K, number of pairs of codes."""
    parts: tuple[Annotated[int, Field(ge=1, le=2**14)], Annotated[int, Field(ge=1, le=2**14)]] = (
        32,
        8,
    )
    """Widths of a semantic and of a pixel code."""
    dim: int = Field(default=40, ge=2, le=2**14)
    """Width of both together: leave it out."""
    distance_weights: tuple[
        Annotated[float, Field(gt=0, le=1e3)], Annotated[float, Field(gt=0, le=1e3)]
    ] = (1.0, 1.0)
    """Weight of the semantic and of the pixel part in the distance."""
    init: Literal["uniform", "sphere", "normal", "kaiming", "data", "kmeans"] = "sphere"
    """As of vq; sphere scales each part to length 1."""

    @model_validator(mode="before")
    @classmethod
    def _sum(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("parts") and "dim" not in value:
            try:
                return {**value, "dim": sum(int(width) for width in value["parts"])}
            except (TypeError, ValueError):
                pass  # the field itself says what is wrong
        return value

    @model_validator(mode="after")
    def _agrees(self) -> DualConfig:
        if self.dim != sum(self.parts):
            raise InputError(
                f"dim={self.dim}, but parts={list(self.parts)} have {sum(self.parts)} channels "
                "together: leave dim out"
            )
        return self

    @classmethod
    def tiny(cls) -> DualConfig:
        return cls(codebook_size=16, parts=(2, 2))


@register("quantizer", DualConfig)
class Dual(VQ):
    def directions(self, rows: Tensor) -> Tensor:
        """Rows or latents [..., d], each part divided by its length."""
        parts = rows.split(self.config.parts, dim=-1)
        return torch.cat([F.normalize(part, dim=-1, eps=NORM_EPS) for part in parts], dim=-1)

    def compared(self, given: Tensor) -> Tensor:
        """As of every codebook; the squared distance of what comes out is the weighted sum."""
        seen = super().compared(given)
        if self.config.distance_weights == (1.0, 1.0):
            return seen
        parts = zip(seen.split(self.config.parts, -1), self.config.distance_weights, strict=True)
        return torch.cat([part * weight**0.5 for part, weight in parts], dim=-1)
