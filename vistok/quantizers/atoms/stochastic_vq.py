"""Stochastic vector quantization: codes are sampled by their similarity (LARP, arXiv 2410.21264).

Latents z and codes e are normalized. In training a code is drawn from p = softmax(<z, e> /
temperature), by the inverse of the cumulated shares at a uniform number; without draws it is the
most likely one, which is the nearest. Losses and straight-through are those of `vq`.
Letters: B batch, N latents, d width, K codes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws, picked
from vistok.core.errors import InputError
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Layout
from vistok.quantizers.atoms.vq import VQ, VQConfig

START = 10.0  # inverse temperature that `stored` begins with


class StochasticVQConfig(VQConfig):
    kind: Literal["stochastic_vq"] = "stochastic_vq"
    temperature: Annotated[float, Field(ge=1e-6)] | Literal["stored"] = 0.03
    """Temperature of the draw. stored: its inverse lies among the weights and begins at 10. LARP
    calls that learnable, but a drawn index passes no gradient on, so that it stays as it was."""

    @model_validator(mode="after")
    def _of_directions(self) -> StochasticVQConfig:
        if not self.l2_norm:
            raise InputError(
                "l2_norm=false: stochastic_vq draws by the cosine of latents and codes; give "
                "l2_norm=true, or quantizer.kind=vq"
            )
        return self

    @classmethod
    def tiny(cls) -> StochasticVQConfig:
        return cls(codebook_size=16, dim=4)


@register("quantizer", StochasticVQConfig)
class StochasticVQ(VQ):
    residual = False  # levels search their codes without draws, so that nothing would be sampled

    def __init__(self, config: StochasticVQConfig) -> None:
        super().__init__(config)
        if config.temperature == "stored":
            self.register_buffer("inverse_temperature", torch.tensor(START))
        else:
            self.inverse_temperature = 1 / config.temperature

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws:
        """uniform [B, N]: a code of each latent, as a place among the cumulated shares."""
        return PartDraws(uniform=rng.uniform(index, (layout.count,)))

    def shares(self, z: Tensor) -> Tensor:
        """z [..., d] -> shares of all codes [..., K] fp32 that training draws from."""
        cosines = self.given(z) @ self.codes().T
        return (cosines * self.inverse_temperature).softmax(-1)

    @torch.no_grad()
    def choose(self, latents: Latents, draws: Draws) -> tuple[Tensor, Tensor]:
        own = draws.part("quantizer")
        if own.uniform is None and own.chosen is None:
            return self.search(latents)
        z = self.given(latents.values)
        if own.chosen is not None:
            indices = own.chosen.to(z.device).view(*z.shape[:2], 1)
        else:
            indices = picked(self.shares(z), own.uniform.to(z))[..., None]
        if self.training:
            self.count(latents.values.flatten(0, 1), z.flatten(0, 1), indices.flatten())
        return indices, z[:, :, None]
