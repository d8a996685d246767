"""What stands behind a grid of tokens: logits over another tokenizer's codes.

(Pixels: vistok/layers/patchify.py.) Letters: B batch, h w grid, W width, K codes.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn


class CodeLogits(nn.Module):
    """Linear -> tanh -> Linear (TiTok's head over proxy codes); [B, h*w, W] -> [B, K, h, w]."""

    def __init__(self, width: int, grid: tuple[int, int], codes: int) -> None:
        super().__init__()
        self.grid = grid
        self.up = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(2 * width, codes)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(self.up(x).tanh()), "b (h w) k -> b k h w", h=self.grid[0])

    @property
    def last_layer(self) -> nn.Parameter:
        return self.proj.weight
