"""SimVQ, a quantizer that vistok does not have, written as a part of one's own.

"Addressing Representation Collapse in Vector Quantized Models with One Linear Layer"
(arXiv 2411.02038): the codebook C [K, d] is frozen, and one linear layer W [d, d] is learned, so
that the codes C W move together, the unused ones too. Loss: |sg(z) - q|^2 + 0.25 |z - sg(q)|^2.

In this folder:

    vistok test-part simvq                    # does it keep the contract? seconds
    vistok train simvq.yaml plugins=simvq     # of the quickstart's size; steps=300 for a look
    vistok eval runs/simvq plugins=simvq report=runs/simvq/report.html

What a model of it saves names `simvq`; no command imports that by itself, so each needs plugins=.
Letters: B batch, N latents, K codes, d width of a code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.quantizers import Quantizer
from vistok.quantizers.nearest import nearest_code, nearest_codes
from vistok.quantizers.straight_through import straight_through


class SimVQConfig(Config):
    kind: Literal["simvq"] = "simvq"
    codebook_size: int = Field(default=4096, ge=2)
    """K, number of codes."""
    dim: int = Field(default=16, ge=1)
    """d, width of a code."""
    loss_weights: dict[str, float] = {"codebook": 1.0, "commitment": 0.25}

    @classmethod
    def tiny(cls) -> "SimVQConfig":
        """The config that `vistok test-part` uses."""
        return cls(codebook_size=16, dim=4)


@register("quantizer", SimVQConfig)
class SimVQ(Quantizer):
    def __init__(self, config: SimVQConfig) -> None:
        super().__init__()
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (config.codebook_size,)
        self.loss_weights = config.loss_weights
        codebook = torch.randn(config.codebook_size, config.dim) * config.dim**-0.5
        self.register_buffer("codebook", codebook)  # frozen, and saved with the model
        self.linear = nn.Linear(config.dim, config.dim)

    def codes(self) -> Tensor:
        """[K, d]"""
        return self.linear(self.codebook)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values  # [B, N, d], fp32 whatever autocast says
        found = nearest_code(z.detach().flatten(0, 1), self.codes().detach())
        indices = found.view(*z.shape[:2], 1)  # [B, N, F]: a token has one factor
        chosen = self.lookup(indices)
        losses = {
            "codebook": F.mse_loss(chosen, z.detach()),
            "commitment": F.mse_loss(z, chosen.detach()),
        }
        values = straight_through(chosen.detach(), z)
        return Quantized(values, values, indices, z.detach()[:, :, None], losses)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return F.embedding(indices[..., 0], self.codes())

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        near = nearest_codes(queries.flatten(0, 2), self.codes().detach(), count)
        return near.view(*queries.shape[:3], -1, 1)
