"""Online clustering of a codebook: codes that are not used move onto data (CVQ-VAE, 2307.15139).

    usage_k <- decay usage_k + (1 - decay) p_k          share of the global batch
    alpha_k  = exp(-usage_k K 10 / (1 - decay) - 1e-3)  about 1 for a dead code, 0 for a healthy one
    code_k  <- (1 - alpha_k) code_k + alpha_k anchor_k  anchor: the batch's latent nearest to code k

The original moves codes inside the forward pass, before the optimizer; ours move after its step,
once a step, so that micro-batches and ranks agree. Letters: K codes, d width, n latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.quantizers.nearest import nearest_code
from vistok.runtime import distributed


class Anchors(nn.Module):
    """The latent of this step that is nearest to each of K codes, over micro-batches and ranks.

    Kept in buffers of one shape, so that a compiled step is one graph for all its micro-batches.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, dim), persistent=False)  # as they came
        self.register_buffer("far", torch.full((size,), torch.inf), persistent=False)

    def clear(self) -> None:
        self.far.fill_(torch.inf)

    @torch.no_grad()
    def add(self, z: Tensor, compared: Tensor, codes: Tensor) -> None:
        """
        Args:
            z: [n, d] latents as they came. compared: [n, d] as distances see them (normalized).
            codes: [K, d] as distances see them.
        """
        nearest = nearest_code(codes, compared)  # [K]
        far = (compared[nearest] - codes).square().sum(-1)
        closer = far < self.far
        self.rows.copy_(torch.where(closer[:, None], z[nearest], self.rows))
        self.far.copy_(torch.where(closer, far, self.far))

    @torch.no_grad()
    def take(self) -> Tensor:
        """[K, d] over all ranks; every rank must call it in the same step."""
        far = distributed.gather(self.far[None])  # [ranks, K]
        rows = distributed.gather(self.rows[None])  # [ranks, K, d]
        best = far.argmin(0)
        self.clear()
        return rows[best, torch.arange(rows.shape[1], device=rows.device)]


def blend(usage: Tensor, decay: float) -> Tensor:
    """[K] running usage -> [K] how far each code moves to its anchor, 0..1."""
    return torch.exp(-(usage * len(usage) * 10) / (1 - decay) - 1e-3)
