"""Feed-forward layers: GELU, exact or by its tanh formula, and gated SiLU (SwiGLU).

`dropout` is the share of hidden activations that training drops.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.layers.dropout import Dropout

MlpKind = Literal["gelu", "gelu_tanh", "swiglu"]


class GeluMlp(nn.Module):
    """Linear -> GELU -> Linear; [..., D] -> [..., D]. `tanh` takes GELU's tanh formula."""

    def __init__(
        self,
        width: int,
        hidden: int,
        bias: bool = True,
        tanh: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.approximate = "tanh" if tanh else "none"
        self.up = nn.Linear(width, hidden, bias=bias)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(F.gelu(self.up(x), approximate=self.approximate)))


class SwiGluMlp(nn.Module):
    """out(silu(gate x) * up x); [..., D] -> [..., D] (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(F.silu(self.gate(x)) * self.up(x)))


def make_mlp(
    kind: MlpKind, width: int, hidden: int, bias: bool = True, dropout: float = 0.0
) -> nn.Module:
    if kind == "swiglu":
        return SwiGluMlp(width, hidden, bias, dropout)
    return GeluMlp(width, hidden, bias, kind == "gelu_tanh", dropout)
