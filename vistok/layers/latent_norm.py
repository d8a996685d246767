"""Norms between an encoder and its quantizer, over channels, slots or the batch.

Letters: B batch, N latents, D width of a latent.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vistok.layers.norms import make_norm
from vistok.runtime.precision import no_autocast

LatentNormKind = Literal[
    "none",
    "layernorm",
    "rmsnorm",
    "layernorm_affine",
    "layernorm_all",
    "batchnorm",
    "batchnorm_each",
]
"""layernorm and rmsnorm, over channels, have no parameters. Those of LARP have: layernorm_affine,
over channels (its ln_d); layernorm_all, over latents and channels together (ln_nd); batchnorm,
over the batch and the latents (bn_bn); batchnorm_each, over the batch alone, for each channel of
each latent (bn_b)."""
LEARNED_EPS = 1e-5  # of LARP's: torch's default when it was trained
EPS = 1e-6


def make_latent_norm(kind: LatentNormKind, count: int, dim: int) -> nn.Module:
    """A norm of latents [B, N, D] -> [B, N, D].

    Args:
        count: N, which the norms over latents are made for.
    """
    if kind in ("none", "layernorm", "rmsnorm"):
        return make_norm(kind, dim, EPS, affine=False)
    if kind == "layernorm_affine":
        return FP32Norm(nn.LayerNorm(dim, eps=LEARNED_EPS))
    if kind == "layernorm_all":
        return FP32Norm(nn.LayerNorm((count, dim), eps=LEARNED_EPS))
    return LatentBatchNorm(dim if kind == "batchnorm" else count * dim, each=kind != "batchnorm")


class FP32Norm(nn.Module):
    """A norm that is computed in fp32 whatever the autocast state."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            return self.norm(x.float())


class LatentBatchNorm(nn.Module):
    """Batch norm of channels over all latents, or of each latent's channels over the batch.

    Several processes share their batches on GPUs only (`vistok.train.parallel.wrap`).
    """

    def __init__(self, features: int, each: bool) -> None:
        super().__init__()
        self.each = each
        self.norm = nn.BatchNorm1d(features, eps=LEARNED_EPS)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            if self.each:
                return self.norm(x.float().flatten(1)).view(x.shape)
            return self.norm(x.float().transpose(1, 2)).transpose(1, 2)
