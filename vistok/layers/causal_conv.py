"""Causal 3D convolutions: no output frame sees a later input frame, so that clips can be streamed.

A clip may be given whole, or piece by piece together with one `Stream`, which keeps the last frames
that later outputs still need; both give the same numbers.
Letters: B batch, C channels, T frames, h w positions of a map.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.core.errors import InputError

TimePadding = Literal["replicate", "zeros", "reflect"]
SpacePadding = Literal["zeros", "replicate", "reflect", "circular"]
Sizes = int | tuple[int, int, int]


class Stream:
    """Memory of causal layers between the pieces of one clip, a tensor or two for each layer.

    One stream serves one clip and one network; the next clip starts with a new one.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def started(self, layer: nn.Module) -> bool:
        """True if the layer has seen a piece of this clip."""
        return id(layer) in self._kept

    def get(self, layer: nn.Module) -> Any:
        """The layer's memory after the last piece; None before the first."""
        return self._kept.get(id(layer))

    def put(self, layer: nn.Module, memory: Any) -> None:
        self._kept[id(layer)] = memory


def starts(stream: Stream | None, layer: nn.Module) -> bool:
    """True if the layer is given the first frame of its clip; a stream remembers the visit."""
    first = stream is None or not stream.started(layer)
    if stream is not None and first:
        stream.put(layer, True)
    return first


def triple(sizes: Sizes) -> tuple[int, int, int]:
    return (sizes,) * 3 if isinstance(sizes, int) else sizes


class CausalConv3d(nn.Conv3d):
    """3D convolution whose padding in time is all in front: [B, C, T, h, w] -> [B, C', T', h', w'].

    In front stand (kernel - 1) x dilation frames: output k sees input frames up to k x stride, so
    that T frames stay T, and 1 + k x stride become 1 + k.
    """

    def __init__(
        self,
        inside: int,
        out: int,
        kernel: Sizes = 3,
        *,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        space_padding: int | None = None,
        front: int | None = None,
        time_mode: TimePadding = "replicate",
        space_mode: SpacePadding = "zeros",
        bias: bool = True,
    ) -> None:
        """
        Args:
            kernel, stride, dilation: of (time, height, width), or one number for the three.
            space_padding: positions on each side of a frame; None = those that keep its sides.
            front: frames in front; None = as the class says. Code that pads `1 - stride` more
                (Cosmos, MAGVIT) makes k of 1 + k x stride.
            time_mode: contents of the frames in front: copies of the first one (Cosmos), zeros,
                or the next frames in reverse, which is not causal in the first outputs, needs
                more than `front` frames and cannot be streamed.
            space_mode: contents of the positions around a frame.
        """
        kernel, stride, dilation = triple(kernel), triple(stride), triple(dilation)
        super().__init__(inside, out, kernel, stride=stride, dilation=dilation, bias=bias)
        around = (
            [(k - 1) * d // 2 for k, d in zip(kernel[1:], dilation[1:], strict=True)]
            if space_padding is None
            else [space_padding] * 2
        )
        self.around = (around[1], around[1], around[0], around[0])
        reach = (kernel[0] - 1) * dilation[0]
        self.front = reach if front is None else front
        self.span, self.time_mode, self.space_mode = reach + 1, time_mode, space_mode

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """
        Args:
            stream: of a clip that comes in pieces: x continues the last piece.
        Raises InputError for a piece of too few frames to give one output frame.
        """
        if any(self.around):
            mode = "constant" if self.space_mode == "zeros" else self.space_mode
            x = F.pad(x, (*self.around, 0, 0), mode=mode)
        kept = None if stream is None else stream.get(self)
        x = self._begun(x, stream) if kept is None else torch.cat([kept, x], 2)
        count = (x.shape[2] - self.span) // self.stride[0] + 1
        if count < 1:
            raise InputError(
                f"a piece gives this causal convolution {x.shape[2]} frames, those in front "
                f"counted; expected {self.span} or more: feed 1 + k x (frames per token) first"
            )
        if stream is not None:
            stream.put(self, x[:, :, count * self.stride[0] :].clone())
        return super().forward(x)

    def _begun(self, x: Tensor, stream: Stream | None) -> Tensor:
        """The first frames of a clip with what stands in front of them."""
        if not self.front:
            return x
        if self.time_mode == "zeros":
            return F.pad(x, (0, 0, 0, 0, self.front, 0))
        if self.time_mode == "replicate":
            return torch.cat([x[:, :, :1].expand(-1, -1, self.front, -1, -1), x], 2)
        if stream is not None:
            raise InputError(
                "time padding reflect looks at later frames, so that a clip cannot come in "
                "pieces; use replicate or zeros"
            )
        if x.shape[2] <= self.front:
            raise InputError(
                f"time padding reflect of {self.front} frames needs {self.front + 1} or more, "
                f"got {x.shape[2]}; use a longer clip, or replicate or zeros"
            )
        return F.pad(x, (0, 0, 0, 0, self.front, 0), mode="reflect")


class CausalChain(nn.Sequential):
    """Causal layers one after another; each is handed the stream."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self:
            x = layer(x, stream)
        return x
