"""Binary latents: each token is a vector of C bits (Instella-T2I, arXiv 2506.21022).

logits = W z + b; bits are Bernoulli(sigmoid(logits / temperature)) while `uniform` is sampled
and sigmoid(logits) > 0.5 otherwise; the value of a token is bits @ embed. Straight-through: forward
the bits, backward sigmoid(logits) without the temperature, or (`estimator: sign`) the logits
clipped to [-1, 1] as for sign networks. The code loss p(1-p) pushes towards certainty.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Layout
from vistok.quantizers.atoms.bits import nearest_flips
from vistok.quantizers.base import Quantizer
from vistok.quantizers.straight_through import straight_through
from vistok.runtime.precision import no_autocast


class BinaryConfig(Config):
    kind: Literal["binary"] = "binary"
    bits: int = Field(default=64, ge=1, le=1024)
    """C: bits of a token."""
    dim: int = Field(default=64, ge=1, le=2**14)
    """Width of the latents and of the code vectors."""
    estimator: Literal["bernoulli", "sign"] = "bernoulli"
    temperature: float = Field(default=0.1, ge=1e-6)
    """Divides the logits of the Bernoulli draw in training (the original's default is 1.0)."""
    anneal_from: float | None = Field(default=None, ge=1e-6)
    """Temperature at the first step, from which it changes linearly to `temperature` at the last;
    null = constant."""
    embed_std: float | None = Field(default=None, gt=0)
    """Standard deviation of the code vectors of bits at the start (Instella-T2I: 0.02); null =
    sqrt(2 / bits), for values of unit variance."""
    loss_weights: dict[Literal["code"], float] = {"code": 0.0}
    """Weight of p(1-p); its published value is unknown."""

    @classmethod
    def tiny(cls) -> BinaryConfig:
        return cls(bits=6, dim=4)


@register("quantizer", BinaryConfig)
class Binary(Quantizer):
    remedy = "bits that never change carry nothing: try estimator=sign or fewer bits"

    def __init__(self, config: BinaryConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (2,) * config.bits
        self.loss_weights = config.loss_weights
        self.proj = nn.Linear(config.dim, config.bits)
        # Zero-mean rows of unit-variance sums: half of the bits are on.
        std = (2 / config.bits) ** 0.5 if config.embed_std is None else config.embed_std
        self.embed = nn.Parameter(torch.randn(config.bits, config.dim) * std)

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """uniform [B, L, C] for the Bernoulli bits of a training step."""
        if self.config.estimator == "sign":
            return None
        uniform = rng.uniform(index, (layout.count, self.config.bits))
        if self.config.anneal_from is not None:
            # u < sigmoid(x / t') is u' < sigmoid(x / t) with logit(u') = logit(u) t' / t.
            uniform = torch.sigmoid(torch.logit(uniform) * self._warmth(progress))
        return PartDraws(uniform=uniform)

    def _warmth(self, progress: Progress) -> float:
        """The temperature of this step, over the one that `quantize` divides by."""
        start, end = self.config.anneal_from, self.config.temperature
        done = progress.step / max(progress.steps - 1, 1)
        return (start + (end - start) * min(done, 1.0)) / end

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        logits = self.proj(z)
        p = torch.sigmoid(logits)
        # In fp32 the smallest logits have p = 1/2 exactly: their bits are 0, of either sign.
        queries = torch.where(p == 0.5, 0.0, logits).detach()[:, :, None]
        own = draws.part("quantizer")
        if own.chosen is not None:
            bits = own.chosen.to(p)
        elif own.uniform is not None:
            bits = (own.uniform < torch.sigmoid(logits / self.config.temperature)).to(p)
        else:
            bits = (p > 0.5).to(p)
        through = p if self.config.estimator == "bernoulli" else (logits.clamp(-1, 1) + 1) / 2
        values = straight_through(bits, through) @ self.embed
        losses = {"code": (p * (1 - p)).mean()}
        return Quantized(values, values, bits.long(), queries, losses)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        with no_autocast(indices.device):
            return indices.to(self.embed) @ self.embed

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        """Cheapest sets of flipped bits, codes being +-1 in the space of the logits."""
        batch, length = queries.shape[:2]
        flat = queries.flatten(0, 2).float()
        near = nearest_flips(flat, count)  # [n, count, C]
        return near.view(batch, length, 1, -1, flat.shape[1])
