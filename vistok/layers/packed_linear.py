"""Linear layers with weights in oneDNN's blocked layout, for a few rows on CPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vistok.layers.mlp import GatedMlp

_linear = torch.ops.mkldnn._linear_pointwise.default

LEAST = 4  # rows: a product of fewer takes half as long again as one of these


class PackedLinear(nn.Module):
    """The linear layer of a weight [out, in] and a bias, for steps of few rows on CPUs.

    Packed at the first call; later changes of the weight are not seen.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.packed: Tensor | None = None
        self.room: Tensor | None = None  # [LEAST, in], for inputs of fewer rows

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, LEAST)
        rows = x.numel() // x.shape[-1]
        if rows >= LEAST:
            return _linear(x, self.packed, self.bias, "none", [], "")
        if self.room is None:
            with torch.inference_mode(False):  # else it could only be written to in that mode
                self.room = x.new_zeros(LEAST, x.shape[-1])
        self.room[:rows] = x.reshape(rows, -1)
        y = _linear(self.room, self.packed, self.bias, "none", [], "")
        return y[:rows].view(*x.shape[:-1], -1)


class PackedGatedMlp(nn.Module):
    """A gated feed-forward layer whose first two products are one."""

    def __init__(self, mlp: GatedMlp, cast: Callable[[Tensor | None], Tensor | None]) -> None:
        super().__init__()
        self.activation = mlp.activation
        both, pair = (mlp.gate, mlp.up), None
        if mlp.up.bias is not None:
            pair = torch.cat([cast(one.bias) for one in both])
        self.both = PackedLinear(torch.cat([cast(one.weight) for one in both]), pair)
        self.out = PackedLinear(cast(mlp.out.weight), cast(mlp.out.bias))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(x).chunk(2, dim=-1)
        return self.out(self.activation(gate).mul_(up))
