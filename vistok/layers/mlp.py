"""Feed-forward layers: GELU (exact, by its tanh or by its sigmoid formula), SiLU, and gated ones.

`dropout` is the share of hidden activations that training drops.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.layers.dropout import Dropout

MlpKind = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "swiglu", "geglu"]


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the formula of CLIP's networks."""
    return x * (1.702 * x).sigmoid()


class PlainMlp(nn.Module):
    """Linear -> activation -> Linear; [..., D] -> [..., D]."""

    def __init__(
        self,
        width: int,
        hidden: int,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, hidden, bias=bias)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.up(x))))


class GeluMlp(PlainMlp):
    """The plain layer with GELU; `tanh` takes its tanh formula."""

    def __init__(
        self,
        width: int,
        hidden: int,
        bias: bool = True,
        tanh: bool = False,
        dropout: float = 0.0,
    ) -> None:
        gelu = partial(F.gelu, approximate="tanh" if tanh else "none")
        super().__init__(width, hidden, bias, gelu, dropout)


class GatedMlp(nn.Module):
    """out(activation(gate x) * up x); [..., D] -> [..., D] (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.silu,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.gate(x)) * self.up(x)))


def make_mlp(
    kind: MlpKind, width: int, hidden: int, bias: bool = True, dropout: float = 0.0
) -> nn.Module:
    if kind in ("gelu", "gelu_tanh"):
        return GeluMlp(width, hidden, bias, kind == "gelu_tanh", dropout)
    if kind == "quick_gelu":
        return PlainMlp(width, hidden, bias, quick_gelu, dropout)
    layer = PlainMlp if kind == "silu" else GatedMlp
    return layer(width, hidden, bias, F.gelu if kind == "geglu" else F.silu, dropout)
