"""U-ViT (arXiv 2209.12152): a transformer whose late blocks read what early ones gave.

Half of the blocks come before one in the middle, half behind it; block i from the end sees the
output of block i from the start beside its own input, through a linear layer.
Letters: B batch, S slots in front, L positions, n slots, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.layers.masks import joined
from vistok.layers.norms import make_norm
from vistok.layers.transformer import Block, TransformerConfig, UnrotatedConfig, init_weights


class UViTConfig(UnrotatedConfig):
    """`depth` counts the blocks before and behind the one in the middle; odd ones are rounded
    down."""

    kind: Literal["uvit"] = "uvit"
    norm_eps: float = 1e-5
    qkv_bias: bool | None = False
    init: Literal["fan_in", "trunc_normal", "torch", "xavier"] = "fan_in"

    @property
    def half(self) -> int:
        """Blocks before the one in the middle, and behind it."""
        return self.depth // 2

    @property
    def embedding_std(self) -> float:
        """Standard deviation of embeddings and positions at the start: that of a block's output, or
        a narrow network does not see for long which code it reads, or where."""
        return 1.0 if self.init == "fan_in" else 0.02


class UViTBlock(nn.Module):
    """A pre-norm block behind a linear layer over [x | skip]."""

    def __init__(self, config: TransformerConfig, number: int) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * config.width, config.width)
        self.block = Block(config, number)

    def forward(self, x: Tensor, skip: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.block(self.skip(torch.cat([x, skip], dim=-1)), mask=mask)


@register("trunk", UViTConfig)
class UViT(nn.Module):
    """Bidirectional transformer over slots in front and L positions.

    Args:
        front: S. length: L.
    """

    reads = "front"

    def __init__(self, config: UViTConfig, front: int, length: int) -> None:
        super().__init__()
        width, half = config.width, config.half
        # What grows with a block's place, or shrinks with their number, counts all of them.
        whole = config.model_copy(update={"depth": 2 * half + 1})
        self.positions = nn.Parameter(torch.randn(front + length, width) * config.embedding_std)
        self.early = nn.ModuleList(Block(whole, i) for i in range(half))
        self.middle = Block(whole, half)
        self.late = nn.ModuleList(UViTBlock(whole, half + 1 + i) for i in range(half))
        self.norm = make_norm(config.norm, width, config.norm_eps, config.norm_affine)
        init_weights(self, whole)

    def forward(self, x: Tensor, front: Tensor, seen: Tensor | None = None) -> Tensor:
        """Hidden states [B, L, W] of embeddings x [B, L, W].

        Args:
            front: [B, S, W]. seen: [B, L] bool, positions that exist; None = all.
        """
        count = front.shape[1]
        mask = None if seen is None else joined(count, seen, batch=len(x), device=x.device)
        x = torch.cat([front.to(x.dtype), x], dim=1) + self.positions
        skips = []
        for block in self.early:
            x = block(x, mask=mask)
            skips.append(x)
        x = self.middle(x, mask=mask)
        for block in self.late:
            x = block(x, skips.pop(), mask)
        return self.norm(x)[:, count:]
