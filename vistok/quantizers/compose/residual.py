"""Residual quantization at one resolution (RQ-VAE, arXiv 2203.01941; SoundStream, 2107.03312).

Every latent is coded `levels` times; blocks of tokens are the levels, coarse codes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Layout
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.compose.levels import Levels, LevelsConfig


class ResidualConfig(LevelsConfig):
    kind: Literal["residual"] = "residual"
    levels: int = Field(default=4, ge=1, le=256)
    """S: codes of each latent."""
    shared: bool = True
    """One codebook for all levels (RQ-VAE), or one for each (SoundStream)."""

    @classmethod
    def tiny(cls) -> ResidualConfig:
        atom = VQConfig(codebook_size=16, dim=4, l2_norm=False)
        return cls(levels=2, quantizer=atom, shared=False)


@register("quantizer", ResidualConfig)
class Residual(Levels):
    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(config, config.levels, config.shared)

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        if stored is not None or len(grids) != 1:
            raise InputError(
                f"residual quantizes one grid, all of it; got latents on {len(grids)} grids"
                + (f" of which {stored} are stored" if stored is not None else "")
                + ": for branches put it inside {kind: product, split: grids}"
            )
        return self.set_levels(grids[0], (tuple(grids[0]),) * self.count)

    def down(self, rest: Tensor, level: int) -> Tensor:
        return rest

    def up(self, codes: Tensor, level: int) -> Tensor:
        return codes
