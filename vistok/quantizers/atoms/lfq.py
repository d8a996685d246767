"""Lookup-free quantization: the sign of every channel (LFQ, arXiv 2310.05737; BSQ, 2406.07548).

The code set is {-m, +m}^C. LFQ takes m = 1 and the latents as they are; BSQ (`sphere`) first
normalizes them to length 1 and takes m = 1/sqrt(C). Bit i of an index is 1 where channel i is
positive. The code distribution of the entropy terms is softmax(-|z - c|^2 / temperature) over all
codes, which is a product of sigmoids with log odds 4 m z / temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.one_or_list import one_or_list
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.bits import (
    batch_entropy,
    bits_to_index,
    flip_costs,
    index_to_bits,
    sample_entropy,
)
from vistok.quantizers.base import Quantizer
from vistok.quantizers.nearest import nearest_on_grid
from vistok.quantizers.straight_through import straight_through


class LFQConfig(Config):
    kind: Literal["lfq"] = "lfq"
    bits: int = Field(default=12, ge=1, le=256)
    """C, bits of a token; the codebook size is 2**C."""
    factor_bits: one_or_list(Annotated[int, Field(ge=1, le=30)]) | None = None
    """Bits of each factor of a token, a divisor of C: 1 keeps them as bits. A list has them one by
    one, their sum is C: [6, 12] (Open-MAGVIT2). null: one index of all, for up to 30."""
    sphere: bool = False
    """BSQ: latents and codes on the unit sphere."""
    temperature: float = Field(default=1.0, ge=1e-6)
    """Temperature of the code distribution behind the entropy terms."""
    entropy_group: int = Field(default=8, ge=1, le=20)
    """Bits whose joint batch entropy is exact; the groups' entropies are added. Open-MAGVIT2 takes
    all 18 together."""
    entropy_eps: float = Field(default=0.0, ge=0, le=1e-3)
    """Added to mean probabilities inside the logarithm of the batch entropy (XQ-GAN: 1e-8, or 1e-5
    with entropy_group = bits)."""
    entropy_over: Literal["global", "local"] = "global"
    """Batch over which entropy_batch takes its mean in training: the global one, or that of each
    process (Open-MAGVIT2)."""
    entropy_boost: float = Field(default=0.0, ge=0)
    """Factor by which both entropy terms weigh more at the first step, beside their weight; it
    falls linearly to 0 (Open-MAGVIT2's codebook_enlarge_ratio, which no release uses)."""
    entropy_boost_steps: int = Field(default=2000, ge=1)
    """Steps over which it falls."""
    loss_weights: dict[Literal["commitment", "entropy_sample", "entropy_batch"], float] = {
        "commitment": 0.25,
        "entropy_sample": 0.1,
        "entropy_batch": -0.1,
    }
    """entropy_batch is maximized: its weight is negative."""

    @classmethod
    def tiny(cls) -> LFQConfig:
        return cls(bits=6)

    @model_validator(mode="after")
    def _fits(self) -> LFQConfig:
        if self.factor_bits is None and self.bits > 30:
            raise InputError(
                f"bits={self.bits}: an index of {self.bits} bits is too large (limit 30); keep "
                "tokens as smaller factors, e.g. factor_bits=1"
            )
        if isinstance(self.factor_bits, tuple):
            if sum(self.factor_bits) != self.bits:
                raise InputError(
                    f"factor_bits={list(self.factor_bits)} has {sum(self.factor_bits)} bits; "
                    f"expected the bits={self.bits} of a token"
                )
        elif self.factor_bits is not None and self.bits % self.factor_bits:
            raise InputError(
                f"factor_bits={self.factor_bits} does not divide bits={self.bits}; expected a "
                "divisor"
            )
        return self

    @property
    def factors(self) -> tuple[int, ...]:
        """Bits of each factor."""
        if isinstance(self.factor_bits, tuple):
            return self.factor_bits
        each = self.factor_bits or self.bits
        return (each,) * (self.bits // each)


@register("quantizer", LFQConfig)
class LFQ(Quantizer):
    residual = True
    remedy = (
        "try entropy losses of more weight (entropy_batch's is negative: it rewards use), another "
        "temperature, or fewer bits"
    )

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = self.value_dim = config.bits
        self.vocab = tuple(2**count for count in config.factors)
        self.loss_weights = config.loss_weights
        self.magnitude = config.bits**-0.5 if config.sphere else 1.0

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = self._placed(latents.values)
        indices, queries = self.search(latents)
        codes = self.lookup(indices)
        losses = {"commitment": F.mse_loss(z, codes), **self.entropies(z)}
        values = straight_through(codes, z)
        return Quantized(values, values, indices, queries, losses)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        bits = (latents.values > 0).long()  # as they came: the norm of very large ones is inf
        return self._indices(bits), self._placed(latents.values)[:, :, None]

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        """As in the base class; latents lie on the sphere if codes do."""
        logits = (z * (4.0 * self.magnitude * magnitude / self.config.temperature)).flatten(0, 1)
        if weights is not None:
            weights = weights.repeat_interleave(z.shape[1])
        group, eps = self.config.entropy_group, self.config.entropy_eps
        everywhere = self.training and self.config.entropy_over == "global"
        return {
            "entropy_sample": sample_entropy(logits, weights),
            "entropy_batch": batch_entropy(logits, group, weights, eps, everywhere),
        }

    def weights_at(self, progress: Progress) -> Mapping[str, float]:
        rest = max(0.0, 1 - progress.step / self.config.entropy_boost_steps)
        factor = 1 + self.config.entropy_boost * rest
        return {
            name: weight * factor if name.startswith("entropy") else weight
            for name, weight in self.loss_weights.items()
        }

    def restored(self, values: Tensor) -> Tensor:
        if self.config.sphere:
            raise InputError(
                "quantizer: 'lfq' with sphere=true keeps the direction of a latent alone, so that "
                "no trained decoder can read its codes; set sphere=false"
            )
        return super().restored(values)

    def _placed(self, z: Tensor) -> Tensor:
        """Latents [..., C] as distances see them."""
        return F.normalize(z, dim=-1, eps=1e-12) if self.config.sphere else z

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        factors = zip(indices.unbind(-1), self.config.factors, strict=True)
        return self._codes(torch.cat([index_to_bits(one, count) for one, count in factors], -1))

    def _indices(self, bits: Tensor) -> Tensor:
        """[..., C] -> [..., F]: the numbers of the factors."""
        parts = bits.split(self.config.factors, dim=-1)
        return torch.stack([bits_to_index(part) for part in parts], -1)

    def _codes(self, bits: Tensor) -> Tensor:
        return (bits.float() * 2 - 1) * self.magnitude

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        batch, length = queries.shape[:2]
        flat = queries.flatten(0, 2).float()
        near = self._indices(nearest_on_grid(flip_costs(flat, self.magnitude), count, flips=True))
        return near.view(batch, length, 1, -1, len(self.vocab))
