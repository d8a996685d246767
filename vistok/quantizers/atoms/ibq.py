"""Index backpropagation (IBQ, arXiv 2412.02692): the code with the largest inner product, and a
gradient for every code.

The chosen code is argmax z . e, of plain inner products: neither side is normalized. Its value is
the row itself; its gradient is that of (hard - sg(p) + p) E with p = softmax(z . E), so through p
it goes to the latent and to all rows, which keeps codebooks of 2^18 codes in use. The
straight-through copy of other quantizers is not there.
Losses: `quantize`, |values - z|^2 with that gradient; `commitment`, the same with the row held;
`codebook`, with the latent held (the paper writes its weight on the commitment; the authors' code
has it here). Entropy terms as in LFQ, of softmax(z . E / entropy_temperature).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.quantizers.base import Quantizer
from vistok.quantizers.index_softmax import entropies, expected_code
from vistok.quantizers.nearest import nearest_code, nearest_codes
from vistok.runtime import distributed
from vistok.runtime.precision import no_autocast

_LOG_EPS = 1e-5  # inside the logarithm of entropy_batch


class IBQConfig(Config):
    kind: Literal["ibq"] = "ibq"
    codebook_size: int = Field(default=16384, ge=2, le=2**22)
    """K, number of codes."""
    dim: int = Field(default=256, ge=1, le=2**14)
    """Width of a code."""
    init: Literal["normal", "uniform"] = "normal"
    """normal(0, 1), or uniform(-1/K, 1/K)."""
    entropy_temperature: float = Field(default=0.01, ge=1e-6)
    """Temperature of the code distribution behind the entropy terms."""
    entropy_over: Literal["global", "local"] = "global"
    """Batch over which entropy_batch takes its mean in training: the global one, or that of each
    process (the authors')."""
    loss_weights: dict[
        Literal["quantize", "commitment", "codebook", "entropy_sample", "entropy_batch"], float
    ] = {
        "quantize": 1.0,
        "commitment": 1.0,
        "codebook": 0.25,
        "entropy_sample": 0.05,
        "entropy_batch": -0.05,
    }
    """entropy_batch is maximized: its weight is negative. Entropy terms without a weight are not
    computed."""

    @classmethod
    def tiny(cls) -> IBQConfig:
        return cls(codebook_size=16, dim=4)


@register("quantizer", IBQConfig)
class IBQ(Quantizer):
    remedy = (
        "try another learning rate, a smaller width (dim=32), or entropy losses of more weight; "
        "inner products favor long codes"
    )

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (config.codebook_size,)
        self.loss_weights = config.loss_weights
        rows = torch.empty(config.codebook_size, config.dim)
        if config.init == "normal":
            nn.init.normal_(rows)
        else:
            nn.init.uniform_(rows, -1.0 / config.codebook_size, 1.0 / config.codebook_size)
        self.codebook = nn.Parameter(rows)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        indices, queries = self.search(latents)
        rows = self.lookup(indices)  # differentiable in the codebook
        values = rows
        if torch.is_grad_enabled():
            codes = self.codebook.float()
            soft = expected_code(z.flatten(0, 1), codes, codes.detach()).view_as(rows)
            values = rows + (soft - soft.detach())  # the last is 0
        losses = {
            "quantize": F.mse_loss(values, z),
            "commitment": F.mse_loss(rows.detach(), z),
            "codebook": F.mse_loss(rows, z.detach()),
            **self.entropies(z),
        }
        return Quantized(values, values, indices, queries, losses)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        z = latents.values
        indices = nearest_code(z.flatten(0, 1), self.codebook.float(), inner=True)
        return indices.view(*z.shape[:2], 1), z[:, :, None]

    @torch.no_grad()
    def coded(self, latents: Latents) -> Quantized:
        with no_autocast(latents.values.device):
            found = replace(latents, values=latents.values.float())
            indices, queries = self.search(found)
            values = self.lookup(indices)
        return Quantized(values, values, indices, queries)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return F.embedding(indices[..., 0].long(), self.codebook).float()

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        if not any(self.loss_weights.get(name) for name in ("entropy_sample", "entropy_batch")):
            return {}
        flat = (z / magnitude).flatten(0, 1)
        entropy, mean = entropies(flat, self.codebook.float(), self.config.entropy_temperature)
        if self.config.entropy_over == "global" and self.training:
            mean = distributed.mean(mean)
        return {
            "entropy_sample": entropy.mean(),
            "entropy_batch": -(mean * (mean + _LOG_EPS).log()).sum(),
        }

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        batch, length = queries.shape[:2]
        flat, codes = queries.flatten(0, 2).float(), self.codebook.detach().float()
        return nearest_codes(flat, codes, count, inner=True).view(batch, length, 1, -1, 1)
