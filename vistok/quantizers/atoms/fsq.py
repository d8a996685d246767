"""Finite scalar quantization: every channel is rounded to a few levels (arXiv 2309.15505).

Follows FlexTok's form: bound(z) = tanh(z + atanh(o/h)) * h - o with h = (L-1)(1+eps)/2 and
o = 1/2 for even L; codes are divided by floor(L/2), so even levels run from -1 to 1 - 2/L. The
first level varies fastest in an index. FSQ needs no losses; `saturation` is ours. The bound passes
the outermost level by (L-1) eps/2, half a step or more from L = 1 + 1/eps on: codes are clamped.
Inside `residual` each level bounds and rounds what the codes before it miss (Cosmos's residual
FSQ).

iFSQ puts 2 sigmoid(1.6 x) - 1, which spreads normal latents almost evenly, in the place of tanh.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.quantizers.base import Quantizer
from vistok.quantizers.nearest import nearest_on_grid
from vistok.quantizers.straight_through import straight_through

LARGEST = 2**48  # codes; indices and their products with small numbers are int64
_SLOPE_ENDS = 2.5  # |z| at which tanh has 3 % of its slope left
_IFSQ = 1.6


class FSQConfig(Config):
    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=2, le=2**16)], ...] = Field(
        default=(8, 8, 8, 8), min_length=1
    )
    """Levels of each channel, 2 or more; the codebook size is their product, at most 2**48."""
    bound: Literal["tanh", "ifsq"] = "tanh"
    """Curve that bounds latents: tanh x; ifsq, 2 sigmoid(1.6 x) - 1, which is tanh(0.8 x)."""
    eps: float = Field(default=1e-3, ge=1e-5, le=1)
    """Share by which the bound reaches past the outermost level."""
    loss_weights: dict[Literal["saturation"], float] = {}
    """saturation: mean relu(|z| - 2.5)^2, keeps latents where the tanh still has a slope."""

    @model_validator(mode="after")
    def _fits(self) -> FSQConfig:
        if math.prod(self.levels) > LARGEST:
            raise InputError(
                f"levels={self.levels} make {math.prod(self.levels):.3g} codes; expected 2**48 or "
                "fewer: use fewer channels or levels"
            )
        return self

    @classmethod
    def tiny(cls) -> FSQConfig:
        return cls(levels=(4, 3, 2))


@register("quantizer", FSQConfig)
class FSQ(Quantizer):
    residual = curved = True
    remedy = "try loss_weights.saturation=0.001, encoder.latents.gain below 1, or fewer levels"

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        levels = config.levels
        self.latent_dim = self.value_dim = len(levels)
        self.vocab = (math.prod(levels),)
        self.levels, self.curve = levels, config.bound
        self.loss_weights = config.loss_weights
        self._slope = _IFSQ / 2 if config.bound == "ifsq" else 1.0  # of x inside tanh
        level = torch.tensor(levels, dtype=torch.float32)
        half = (level - 1) * (1 + config.eps) / 2
        offset = torch.where(level % 2 == 0, 0.5, 0.0)
        constants = {
            "scale": half,
            "offset": offset,
            "shift": torch.atanh(offset / half) / self._slope,
            "middle": level // 2,
            "sizes": torch.tensor(levels),
            "basis": torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """[..., d] -> [..., d] inside the outermost levels, unit spacing."""
        z = z + self.shift
        curve = 2 * torch.sigmoid(_IFSQ * z) - 1 if self.curve == "ifsq" else torch.tanh(z)
        return curve * self.scale - self.offset

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        bounded = self.bound(z)
        rounded = torch.minimum(bounded.detach().round(), self.sizes - 1 - self.middle)
        rounded = torch.maximum(rounded, -self.middle)
        values = straight_through(rounded, bounded) / self.middle
        # Integers before the products: fp32 holds indices up to 2**24 only.
        digits = (rounded + self.middle).long()
        indices = (digits * self.basis).sum(-1)
        queries = (bounded / self.middle).detach()[:, :, None]
        losses = {}
        if "saturation" in self.loss_weights:
            losses["saturation"] = (z.abs() - _SLOPE_ENDS).relu().square().mean()
        return Quantized(values, values, indices[..., None], queries, losses)

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        """The saturation of a residual level, if it has a weight; there are no entropies."""
        if "saturation" not in self.loss_weights:
            return {}
        beyond = ((z / magnitude).abs() - _SLOPE_ENDS).relu().square().flatten(1).mean(1)
        return {"saturation": (beyond if weights is None else beyond * weights).mean()}

    def pass_through(self, values: Tensor, through: Tensor) -> Tensor:
        return straight_through(values, self.bound(through) / self.middle)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        digits = indices.long() // self.basis % self.sizes
        return (digits - self.middle) / self.middle

    def restored(self, values: Tensor) -> Tensor:
        """The latents in the middle of each level: the inverse of `bound`."""
        inside = (values * self.middle + self.offset) / self.scale
        return torch.atanh(inside) / self._slope - self.shift

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        batch, length = queries.shape[:2]
        flat = queries.reshape(-1, queries.shape[-1]).float()
        # Not by the expanded square over all codes: its rounding swaps the clean code with a
        # neighbor once in 60,000 tokens, and rank 0 must be the clean code.
        costs = [
            (flat[:, i, None] - self._steps(i, flat.device)).square()
            for i in range(len(self.levels))
        ]
        near = (nearest_on_grid(costs, count) * self.basis).sum(-1)
        return near.view(batch, length, 1, -1, 1)

    def _steps(self, channel: int, device: torch.device) -> Tensor:
        """[L_i] code values of one channel."""
        level = self.levels[channel]
        return (torch.arange(level, device=device) - level // 2) / (level // 2)
