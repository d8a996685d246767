"""Continuous latents with a Gaussian posterior (KL-regularized, as in latent diffusion's VAE).

The encoder emits a mean and a log variance, or the mean alone where `logvar` is given; training
samples (`noise`), evaluation takes the mean. Tokens are continuous: no codes, no bytes, no pFID.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Layout
from vistok.quantizers.base import Quantizer


class KLConfig(Config):
    kind: Literal["kl"] = "kl"
    dim: int = Field(default=16, ge=1, le=2**14)
    """Channels of a token; the encoder emits twice as many."""
    logvar: float | None = None
    """Log variance of every latent, of which the encoder then emits the means alone; null = the
    encoder emits both."""
    logvar_range: tuple[float, float] = (-30.0, 20.0)
    """Log variances are clamped to it."""
    loss_weights: dict[Literal["kl"], float] = {"kl": 1e-6}

    @classmethod
    def tiny(cls) -> KLConfig:
        return cls(dim=4)


@register("quantizer", KLConfig)
class KL(Quantizer):
    remedy = "continuous latents have no codebook"

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = config.dim * (2 if config.logvar is None else 1)
        self.value_dim = config.dim
        self.vocab = ()
        self.loss_weights = config.loss_weights

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws:
        """noise [B, N, D]: the posterior's sample."""
        return PartDraws(noise=rng.normal(index, (layout.count, self.config.dim)))

    def posterior(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 2 D] (D, if the variance is given) -> mean and (clamped) log variance, [B, N, D]
        each."""
        if self.config.logvar is None:
            mean, logvar = z.float().chunk(2, dim=-1)
        else:
            mean, logvar = z.float(), torch.full_like(z, self.config.logvar, dtype=torch.float32)
        return mean, logvar.clamp(*self.config.logvar_range)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        """Loss kl: of the posterior to N(0, 1), summed over a sample's tokens and channels, mean
        over samples."""
        mean, logvar = self.posterior(latents.values)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
        values = mean
        noise = draws.part("quantizer").noise
        if noise is not None:
            values = mean + (0.5 * logvar).exp() * noise.to(mean)
        return Quantized(values, values, None, None, {"kl": kl.sum((1, 2)).mean()})

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        raise InputError("continuous latents have no codes to look up; decode their values")

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        raise InputError("continuous latents have no neighboring codes")
