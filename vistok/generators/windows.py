"""Windows of neighboring codes as one position of a transformer (Token-Shuffle, arXiv 2504.17789).

The s x s codes of a window of a 2D grid are embedded, each embedding is reduced to 1/s**2 of the
width, and those of a window lie side by side in one position. Behind the transformer its state is
split again, one part for each code of the next window, and expanded; codes of a window are
independent given all windows before it. Residual feed-forward blocks stand around both steps.
Windows follow each other in raster order, and so do the codes inside one.
Letters: B batch, L codes, N = L / s**2 windows, F factors, W width, R rows, s side of a window.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vistok.layers.mlp import make_mlp
from vistok.layers.norms import make_norm
from vistok.layers.transformer import TransformerConfig, init_weights
from vistok.tokens import TokenSpec


def windows_of(grid: tuple[int, int], side: int) -> Tensor:
    """[N, s**2] raster numbers of the cells of each window of a grid."""
    cells = torch.arange(grid[0] * grid[1]).view(grid)
    return rearrange(cells, "(h a) (w b) -> (h w) (a b)", a=side, b=side)


def cannot_merge(spec: TokenSpec, side: int) -> str | None:
    """Reason why these tokens have no windows of this side; None if they have."""
    one = len(spec.blocks) == 1 and len(spec.blocks[0]) == 2 and spec.prefix == "none"
    if one and not any(length % side for length in spec.blocks[0]):
        return None
    return (
        f"with window={side} merges codes of one 2D grid whose sides {side} divides, without "
        f"prefixes, and these tokens have blocks={spec.blocks}, prefix={spec.prefix}"
    )


class ResidualMlp(nn.Module):
    """x + mlp(norm x), as wide inside as outside; [..., W] -> [..., W]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, bias = config.width, config.bias
        self.norm = make_norm(config.norm, width, config.norm_eps, config.norm_affine)
        self.mlp = make_mlp(config.mlp, width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class WindowEmbedding(nn.Module):
    """Embeddings of windows: codes [B, n s**2, F] in the order of windows -> [B, n, W]."""

    def __init__(self, embed: nn.Module, config: TransformerConfig, side: int, blocks: int) -> None:
        """
        Args:
            embed: of codes [B, n, F]. blocks: residual ones behind the merge.
        """
        super().__init__()
        self.codes, self.cells = embed, side * side
        self.reduce = nn.Linear(config.width, config.width // self.cells, bias=config.bias)
        self.blocks = nn.Sequential(*(ResidualMlp(config) for _ in range(blocks)))

    def forward(self, indices: Tensor) -> Tensor:
        x = self.reduce(self.codes(indices))
        return self.blocks(rearrange(x, "b (n c) d -> b n (c d)", c=self.cells))


class WindowHead(nn.Module):
    """A head of the codes of a window, from one state."""

    def __init__(self, head: nn.Module, config: TransformerConfig, side: int, blocks: int) -> None:
        super().__init__()
        self.cells = side * side
        self.blocks = nn.Sequential(*(ResidualMlp(config) for _ in range(blocks)))
        self.expand = nn.Linear(config.width // self.cells, config.width, bias=config.bias)
        init_weights(self, config)
        self.codes = head

    def split(self, hidden: Tensor) -> Tensor:
        """States of windows [B, n, W] -> states of their codes [B, n s**2, W]."""
        return self.expand(rearrange(self.blocks(hidden), "b n (c d) -> b (n c) d", c=self.cells))

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """hidden [B, n, W], indices [B, n s**2, F] -> nats [B, n s**2]."""
        return self.codes(self.split(hidden), indices)
