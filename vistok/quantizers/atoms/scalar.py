"""Scalar quantization: every dimension of a latent has the same fixed levels (TokenBridge, arXiv
2503.16430, section 3.1).

Levels are dense where latents of a normal distribution are: the range is mapped onto -R..R
(`std_range`), which is cut into bins of equal probability of a standard normal distribution, the
outermost cut off at -R and R; a level is the mean of its bin:

    u = (z - low) / (high - low) * 2 R - R, clamped to -R..R
    index = argmin_k |u - r_k|, equal distances to the lower index
    value = (r_index + R) / (2 R) * (high - low) + low

A token has one factor per dimension, so that generators can predict dimensions one by one. Nothing
is learned: the atom quantizes trained latents, and trains an encoder by the straight-through
estimator.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.quantizers.base import Quantizer
from vistok.quantizers.nearest import nearest_on_grid
from vistok.quantizers.straight_through import straight_through

_NO_MASS = 1e-10  # divides in the place of a bin's probability of 0


class ScalarConfig(Config):
    kind: Literal["scalar"] = "scalar"
    dim: int = Field(default=16, ge=1, le=1024)
    """Dimensions of a latent, each of which is a factor of its token."""
    levels: int = Field(default=64, ge=2, le=2**16)
    """Levels of a dimension; 2^b levels are b bits."""
    range: tuple[float, float] = (-5.0, 5.0)
    """(low, high) of the latents that fall between the levels; one number r for (-r, r). Latents
    outside become the outermost levels."""
    std_range: float = Field(default=3.0, gt=0, le=8)
    """R: standard deviations of the normal distribution that the range stands for."""
    empty_bins: Literal["end", "zero"] = "end"
    """Level of a bin that lies beyond R as a whole, as there are with many levels: the end of the
    range, or its middle (TokenBridge's code, whose quotient of nothing by nothing is 0)."""
    computed_in: Literal["fp64", "fp32"] = "fp64"
    """Arithmetic of the levels. TokenBridge's code computes in fp32, where neighbors of more than
    4,096 levels change their places."""

    @classmethod
    def tiny(cls) -> ScalarConfig:
        return cls(dim=4, levels=5)

    @field_validator("range", mode="before", json_schema_input_type=float | tuple[float, float])
    @classmethod
    def _both(cls, value: Any) -> Any:
        single = isinstance(value, int | float) and not isinstance(value, bool)
        return (-value, value) if single else value

    @model_validator(mode="after")
    def _ordered(self) -> ScalarConfig:
        low, high = self.range
        if not (low < high and math.isfinite(high - low)):
            raise InputError(f"range={self.range}; expected (low, high), low first")
        return self


@register("quantizer", ScalarConfig)
class Scalar(Quantizer):
    residual = True
    remedy = "use a smaller range or fewer levels"

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (config.levels,) * config.dim
        self.loss_weights = {}
        levels = gaussian_levels(config)  # [V], of u
        low, high = config.range
        reach = config.std_range
        order = sorted(range(len(levels)), key=lambda k: (levels[k], k))
        kept = [k for i, k in enumerate(order) if not i or levels[k] != levels[order[i - 1]]]
        r = torch.tensor(levels)
        constants = {
            "levels": r,
            "values": (r + reach) / (2 * reach) * (high - low) + low,
            # Ascending, each once: of equal levels only the first is ever the nearest.
            "steps": torch.tensor([levels[k] for k in kept]),
            "step_index": torch.tensor(kept),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def normalized(self, z: Tensor) -> Tensor:
        """Latents [..., d] -> u in -R..R, which levels are compared with."""
        (low, high), reach = self.config.range, self.config.std_range
        return ((z - low) / (high - low) * (2 * reach) - reach).clamp(-reach, reach)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        indices, queries = self.search(latents)
        values = straight_through(self.lookup(indices), z)
        return Quantized(values, values, indices, queries, {})

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        u = self.normalized(latents.values).contiguous()
        above = torch.searchsorted(self.steps, u).clamp(max=len(self.steps) - 1)
        below = (above - 1).clamp(min=0)
        # Distances as an argmin over all levels would compare them, rounding included.
        far, near = ((u - self.steps[at]).abs() for at in (above, below))
        high, low = self.step_index[above], self.step_index[below]
        first = (near < far) | ((near == far) & (low < high))
        return torch.where(first, low, high), u[:, :, None]

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.values[indices.long()]

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        """Codes by their squared distance, in units of the normal distribution."""
        batch, length = queries.shape[:2]
        flat = queries.reshape(-1, queries.shape[-1]).float()
        # Squares in fp64: two distances that fp32 tells apart may have one square there.
        costs = [(flat[:, i, None] - self.levels).double().square() for i in range(flat.shape[1])]
        return nearest_on_grid(costs, count).view(batch, length, 1, -1, flat.shape[1])


def gaussian_levels(config: ScalarConfig) -> list[float]:
    """Means of the bins, in their order; fp32 numbers."""
    dtype = {"fp64": torch.float64, "fp32": torch.float32}[config.computed_in]
    reach, cpu = config.std_range, torch.device("cpu")  # a model may be built on no device at all
    shares = torch.linspace(0, 1, config.levels + 1, dtype=dtype, device=cpu)
    bounds = torch.special.ndtri(shares.double()).to(dtype).clamp(-reach, reach)
    density = torch.exp(-0.5 * bounds**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + torch.erf(bounds / math.sqrt(2)))
    mass = below.diff()
    means = -density.diff() / torch.where(mass == 0, _NO_MASS, mass)
    if config.empty_bins == "end":
        means = torch.where(bounds.diff() == 0, bounds[1:], means)
    return means.float().tolist()
