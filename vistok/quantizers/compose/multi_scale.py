"""Multi-scale residual quantization (VAR, arXiv 2404.02905; XQ-GAN, 2412.01762).

Level s codes the residual, averaged onto a small grid, and adds its codes back, interpolated to the
whole grid and smoothed by a convolution. One codebook serves all scales.

    up(q_s) = phi_s(bicubic(q_s))        down(rest) = area average

Where systems differ there are options: XQ-GAN searches by direction (`search: cosine` of the vq
atom), VAR by distance. XQ-GAN sums commitment losses over S scales, where VAR averages them: that
is a weight S times as large. MSBR is `normalize: true` over lfq with `sphere: true`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Layout, cells
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.compose.levels import Levels, LevelsConfig, resized
from vistok.quantizers.compose.phi import PhiConfig, Phis

Side = Annotated[int, Field(ge=1, le=2**12)]
VAR_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


class MultiScaleConfig(LevelsConfig):
    kind: Literal["multi_scale"] = "multi_scale"
    scales: tuple[Side | tuple[Side, Side], ...] = Field(default=VAR_SCALES, min_length=1)
    """Grids from coarse to fine, a side or [height, width]; the last is the latents' own."""
    phi: PhiConfig | None = PhiConfig()
    """Convolutions that smooth the map of each scale; null = none."""

    @field_validator("scales")
    @classmethod
    def _fit(cls, scales: tuple) -> tuple:
        last = grids_of(scales)[-1]
        for grid in grids_of(scales):
            if grid[0] > last[0] or grid[1] > last[1]:
                raise InputError(
                    f"scale {grid[0]}x{grid[1]} is larger than the last, {last[0]}x{last[1]}; "
                    "expected grids from coarse to fine"
                )
        return scales

    @classmethod
    def tiny(cls) -> MultiScaleConfig:
        atom = VQConfig(codebook_size=16, dim=4, l2_norm=False, search="cosine")
        return cls(scales=(1, 2), quantizer=atom, phi=PhiConfig(count=2))


@register("quantizer", MultiScaleConfig)
class MultiScale(Levels):
    def __init__(self, config: MultiScaleConfig) -> None:
        scales = grids_of(config.scales)
        super().__init__(config, len(scales), shared=True)
        self.phis = None
        if config.phi is not None:
            self.phis = Phis(config.phi, self.value_dim, len(scales))
        self.set_levels(scales[-1], scales)

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        last = self.blocks[-1]
        name = "x".join(map(str, last))
        if stored is not None or len(grids) != 1:
            raise InputError(
                f"multi_scale quantizes one grid, all of it; got latents on {len(grids)} grids"
                + (f" of which {stored} are stored" if stored is not None else "")
                + ": for branches put it inside {kind: product, split: grids}"
            )
        # A list of as many latents is taken as the grid, row by row.
        if tuple(grids[0]) != last and tuple(grids[0]) != (cells(last),):
            found = "x".join(map(str, grids[0]))
            raise InputError(
                f"quantizer.scales end with {name}, and the encoder's latents lie on {found}; "
                f"expected the last scale to be {found}"
            )
        return self.set_levels(last, self.blocks)

    def restored(self, values: Tensor) -> Tensor:
        if self.phis is not None:
            raise InputError(
                "quantizer: 'multi_scale' with phi has convolutions that only training could fit; "
                "set phi=null"
            )
        return super().restored(values)

    def down(self, rest: Tensor, level: int) -> Tensor:
        return resized(rest, self.grid, self.blocks[level], "area")

    def up(self, codes: Tensor, level: int) -> Tensor:
        whole = resized(codes, self.blocks[level], self.grid, "bicubic")
        if self.phis is None:
            return whole
        maps = whole.transpose(1, 2).unflatten(2, self.grid).contiguous()
        return self.phis.of(level)(maps).flatten(2).transpose(1, 2)


def grids_of(scales: Sequence[int | tuple[int, int]]) -> tuple[Grid, ...]:
    """Sides or [height, width] -> grids."""
    return tuple((s, s) if isinstance(s, int) else tuple(s) for s in scales)
