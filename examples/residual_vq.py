"""A residual VQ written from nothing: how a quantizer whose tokens are not its latents is made.

Every latent is coded `levels` times, each code what the sum of the earlier ones misses (RQ-VAE,
arXiv 2203.01941). The tokens are blocks, one for each level, so a prefix of blocks is a coarser
image: `layout` says so with prefix="block", and `lookup` leaves out the levels behind `keep`.
vistok has one of its own (kind: residual), with more options; this one shows the contract.

In this folder:

    vistok test-part residual_vq levels=3
    vistok train residual_vq.yaml plugins=residual_vq
    vistok encode runs/my_residual my.jpg --length 2 plugins=residual_vq    # two levels of four

Letters: B batch, N latents, S levels, L = S N tokens, K codes, d width of a code.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.core.shapes import Grid, Layout
from vistok.quantizers import Quantizer
from vistok.quantizers.nearest import nearest_code, nearest_codes
from vistok.quantizers.straight_through import straight_through
from vistok.tokens import TokenSpec


class MyResidualConfig(Config):
    kind: Literal["my_residual"] = "my_residual"
    levels: int = Field(default=4, ge=1)
    """S, codes of each latent."""
    codebook_size: int = Field(default=1024, ge=2)
    """K, codes of each level."""
    dim: int = Field(default=16, ge=1)
    """d, width of a code."""
    loss_weights: dict[str, float] = {"codebook": 1.0, "commitment": 0.25}

    @classmethod
    def tiny(cls) -> "MyResidualConfig":
        return cls(levels=2, codebook_size=16, dim=4)


@register("quantizer", MyResidualConfig)
class MyResidual(Quantizer):
    def __init__(self, config: MyResidualConfig) -> None:
        super().__init__()
        self.latent_dim = self.value_dim = config.dim
        self.vocab = (config.codebook_size,)
        self.levels, self.loss_weights = config.levels, config.loss_weights
        codes = torch.randn(config.levels, config.codebook_size, config.dim)
        self.codebooks = nn.Parameter(codes / 2 ** torch.arange(config.levels)[:, None, None])

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        grid = grids[0]
        blocks = (grid,) * self.levels
        spec = TokenSpec(blocks=blocks, vocab=self.vocab, dim=self.value_dim, prefix="block")
        return Layout(spec, (grid,), self.value_dim)  # M = N values, L = S N tokens

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        rest, found, queries, terms = z.detach(), [], [], []
        total = torch.zeros_like(z)
        for level in range(self.levels):
            codebook = self.codebooks[level]
            index = nearest_code(rest.flatten(0, 1), codebook.detach()).view(*z.shape[:2], 1)
            chosen = F.embedding(index[..., 0], codebook)
            queries.append(rest[:, :, None])
            found.append(index)
            rest, total = rest - chosen.detach(), total + chosen
            terms.append((F.mse_loss(total, z.detach()), F.mse_loss(z, total.detach())))
        codebook, commitment = (sum(one) / self.levels for one in zip(*terms, strict=True))
        losses = {"codebook": codebook, "commitment": commitment}
        indices = torch.cat(found, 1)
        values = straight_through(self.rebuilt(indices, draws), z)
        clean = straight_through(self.lookup(indices), z)
        return Quantized(values, clean, indices, torch.cat(queries, 1), losses)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.rebuilt(indices, Draws(keep=keep))

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        """Values [B, N, d] of indices [B, S N, 1]: the sum of the levels that count."""
        counts = torch.ones(len(indices), self.levels, device=indices.device)
        if draws.keep is not None:  # [B] blocks that are kept
            place = torch.arange(self.levels, device=indices.device)
            counts = counts * (place < draws.keep.to(indices.device)[:, None])
        if draws.levels is not None:  # [B, S] of level dropout
            counts = counts * draws.levels.to(counts)
        parts = indices[..., 0].chunk(self.levels, 1)
        codes = [F.embedding(part, self.codebooks[level]) for level, part in enumerate(parts)]
        return sum(code * counts[:, level, None, None] for level, code in enumerate(codes))

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        near = [
            nearest_codes(part.flatten(0, 2), self.codebooks[level].detach(), count)
            for level, part in enumerate(queries.chunk(self.levels, 1))
        ]
        shape = (len(queries), -1, 1, near[0].shape[1], 1)
        return torch.cat([one.view(shape) for one in near], 1)
