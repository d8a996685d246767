"""Feed-forward layers: GELU and gated SiLU (SwiGLU)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

MlpKind = Literal["gelu", "swiglu"]


class GeluMlp(nn.Module):
    """Linear -> exact GELU -> Linear; [..., D] -> [..., D]."""

    def __init__(self, width: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(x)))


class SwiGluMlp(nn.Module):
    """out(silu(gate x) * up x); [..., D] -> [..., D] (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.gate(x)) * self.up(x))


def make_mlp(kind: MlpKind, width: int, hidden: int, bias: bool = True) -> nn.Module:
    return (GeluMlp if kind == "gelu" else SwiGluMlp)(width, hidden, bias)
