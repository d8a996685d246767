"""Vector quantization with a learned codebook (VQ-VAE, arXiv 1711.00937).

One atom for the plain codebook of TiTok, the l2-normalized one of LlamaGen and RobusTok, EMA
codebooks, k-means initialization and the revival of dead codes. With `l2_norm` both latents and
rows are normalized before the distance, and losses and straight-through see normalized vectors.
Entropy terms (LlamaGen, MAGVIT-v2), where they have a weight, are those of p = softmax(-distance /
temperature): entropy_sample, the mean over latents of H(p), and entropy_batch, H(mean of p).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.quantizers.codebook import CodebookConfig, CodebookQuantizer
from vistok.quantizers.nearest import nearest_code, nearest_codes
from vistok.runtime import distributed

LOG_EPS = 1e-5  # inside the logarithm of entropy_batch, as in LlamaGen


class VQConfig(CodebookConfig):
    kind: Literal["vq"] = "vq"
    entropy_temperature: float = Field(default=0.01, ge=1e-6)
    """Temperature of the code distribution behind the entropy terms."""
    entropy_over: Literal["global", "local"] = "global"
    """Batch over which entropy_batch takes its mean in training: the global one, or that of each
    process (LlamaGen)."""
    loss_weights: dict[
        Literal["codebook", "commitment", "entropy_sample", "entropy_batch"], float
    ] = {"codebook": 1.0, "commitment": 0.25}
    """entropy_batch is maximized: its weight is negative. Entropy terms without a weight are not
    computed; they hold latents x codes numbers."""

    @classmethod
    def tiny(cls) -> VQConfig:
        return cls(codebook_size=16, dim=4)


@register("quantizer", VQConfig)
class VQ(CodebookQuantizer):
    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (config.codebook_size,)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = self.given(latents.values)
        indices, queries = self.choose(latents, draws)
        chosen = self.lookup(indices)
        losses = {"commitment": F.mse_loss(z, chosen.detach())}
        if not self.ema:
            losses = {"codebook": F.mse_loss(chosen, z.detach()), **losses}
        losses |= self.entropies(z)
        values = self.pass_through(chosen.detach(), z)
        return Quantized(values, values, indices, queries, losses)

    def choose(self, latents: Latents, draws: Draws) -> tuple[Tensor, Tensor]:
        """Indices [B, L, 1] and queries [B, L, 1, d] of a pass with these draws."""
        return self.search(latents)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        z = self.given(latents.values)
        flat, codes = z.flatten(0, 1), self.compared(self.codes())
        indices = nearest_code(self.compared(flat), codes)
        if self.training:
            self.count(latents.values.flatten(0, 1), flat, indices)
        return indices.view(*z.shape[:2], 1), z[:, :, None]

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        # Only the rows that were asked for are normalized, and differentiated.
        return self.given(F.embedding(indices[..., 0].long(), self.codebook))

    def distances(self, z: Tensor) -> Tensor:
        """z [..., d] -> squared distances to all codes [..., K] fp32, differentiable."""
        z, codes = self.compared(self.given(z)), self.compared(self.codes())
        squares = z.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return squares - 2 * (z @ codes.T)

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        if not any(self.loss_weights.get(name) for name in ("entropy_sample", "entropy_batch")):
            return {}
        z = self.given(z / magnitude).flatten(0, 1)
        log_shares = (self.distances(z) / -self.config.entropy_temperature).log_softmax(-1)
        shares = log_shares.exp()
        entropy, mean = -(shares * log_shares).sum(-1), shares
        if weights is not None:
            weights = weights.repeat_interleave(len(z) // len(weights))
            entropy, mean = entropy * weights, shares * weights[:, None]
        mean = mean.mean(0)
        if self.config.entropy_over == "global" and self.training:
            mean = distributed.mean(mean)
        return {
            "entropy_sample": entropy.mean(),
            "entropy_batch": -(mean * (mean + LOG_EPS).log()).sum(),
        }

    def soft(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """z [..., d] -> shares of all codes [..., K], softmax(-distance / temperature)."""
        return (self.distances(z) / -temperature).softmax(-1)

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        batch, length = queries.shape[:2]
        flat, codes = queries.flatten(0, 2).float(), self.codes().detach()
        near = nearest_codes(self.compared(flat), self.compared(codes), count)
        return near.view(batch, length, 1, -1, 1)
