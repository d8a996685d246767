"""Feed-forward layers: GELU, exact or by its tanh formula, and gated SiLU (SwiGLU)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

MlpKind = Literal["gelu", "gelu_tanh", "swiglu"]


class GeluMlp(nn.Module):
    """Linear -> GELU -> Linear; [..., D] -> [..., D]. `tanh` takes GELU's tanh formula."""

    def __init__(self, width: int, hidden: int, bias: bool = True, tanh: bool = False) -> None:
        super().__init__()
        self.approximate = "tanh" if tanh else "none"
        self.up = nn.Linear(width, hidden, bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(x), approximate=self.approximate))


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
    if kind == "swiglu":
        return SwiGluMlp(width, hidden, bias)
    return GeluMlp(width, hidden, bias, tanh=kind == "gelu_tanh")
