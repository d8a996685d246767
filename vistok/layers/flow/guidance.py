"""Classifier-free guidance of a velocity, and its adaptive projected form.

cfg (arXiv 2207.12598): u + s (c - u). apg (arXiv 2410.02416): the difference c - u gets momentum
over the steps, its norm is bounded, and only its part orthogonal to the conditional prediction is
added in full. Letters: B batch.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.errors import InputError


class GuidanceConfig(Config):
    """Guidance of a decoder or generator that predicts velocities."""

    kind: Literal["cfg", "apg"] = "cfg"
    scale: float = Field(default=1.0, ge=0, le=1e4, allow_inf_nan=False)
    """s; 1 = the conditional prediction alone, which costs half."""
    momentum: float = Field(default=-0.5, gt=-1, lt=1, allow_inf_nan=False)
    """apg: share of the earlier differences that is added (negative: subtracted)."""
    norm_threshold: float = Field(default=2.5, ge=0, allow_inf_nan=False)
    """apg: bound of a sample's difference, as a Euclidean norm; 0 = none."""
    eta: float = Field(default=0.0, ge=0, le=1e4, allow_inf_nan=False)
    """apg: share of the difference's part parallel to the conditional prediction."""
    norms: Literal["sample", "channel"] = "sample"
    """apg: norms and parallel parts are those of a sample, or of each of its channels. FlexTok's
    code sums over the last three axes: a sample of an image, and a channel of a clip
    (VideoFlexTok)."""
    rescale: float = Field(default=0.0, ge=0, le=1)
    """Share of the guided prediction whose standard deviation is set back to that of the
    conditional one (arXiv 2305.08891: 0.7); 0 = none."""
    rescale_over: Literal["sample", "channel", "column"] = "channel"
    """rescale: deviations are those of a sample, of each of its channels, or of each channel over
    the axes 2 and 3 alone, so that each column of a clip has its own (VideoFlexTok's code)."""
    interval: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (
        0,
        1,
    )
    """Times, first the one nearer to the data, between which guidance acts (arXiv 2404.07724);
    outside, the conditional prediction stands alone, which costs half."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Growth of s - 1 along the way from noise to data: constant; linear from 0; cosine, slowly at
    both ends (arXiv 2404.13040)."""

    @model_validator(mode="after")
    def _ordered(self) -> GuidanceConfig:
        if self.interval[0] > self.interval[1]:
            raise InputError(f"interval={self.interval}: expected the smaller time first")
        return self

    def scale_at(self, time: float) -> float:
        """The scale at a time; 1 = no guidance."""
        low, high = self.interval
        if not low <= time <= high:
            return 1.0
        way = {
            "constant": 1.0,
            "linear": 1 - time,
            "cosine": (1 - math.cos(math.pi * (1 - time))) / 2,
        }
        return 1 + (self.scale - 1) * way[self.schedule]


class Guidance:
    """Guidance along one sampling run; apg keeps a running difference from step to step."""

    def __init__(self, config: GuidanceConfig) -> None:
        self.config = config
        self._running: Tensor | None = None

    def __call__(
        self, conditional: Tensor, unconditional: Tensor, scale: float | None = None
    ) -> Tensor:
        """Both predictions [B, ...] -> the guided one [B, ...].

        Args:
            scale: at this time; None = that of the config.
        """
        scale = self.config.scale if scale is None else scale
        guided = self._guided(conditional, unconditional, scale)
        if not self.config.rescale:
            return guided
        over, every = self.config.rescale_over, tuple(range(1, guided.ndim))
        axes = {"sample": every, "channel": every[1:], "column": (2, 3)}[over]
        factor = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return guided * (self.config.rescale * factor + 1 - self.config.rescale)

    def _guided(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        difference = conditional - unconditional
        if self.config.kind == "cfg":
            return unconditional + scale * difference
        if self._running is None:
            self._running = difference
        else:
            self._running = difference + self.config.momentum * self._running
        bounded, threshold = self._running, self.config.norm_threshold
        if threshold:
            bounded = _bounded(bounded, threshold, self._first)
        parallel, orthogonal = _project(bounded, conditional, self._first)
        return conditional + (scale - 1) * (orthogonal + self.config.eta * parallel)

    @property
    def _first(self) -> int:
        """The first axis that norms are taken over."""
        return 1 if self.config.norms == "sample" else 2


def _bounded(difference: Tensor, threshold: float, first: int) -> Tensor:
    """Each sample of [B, ...] scaled down to a Euclidean norm of `threshold` at most; or, with
    first=2, each channel of one."""
    norm = difference.flatten(first).norm(dim=-1).clamp_min(torch.finfo(difference.dtype).tiny)
    factor = (threshold / norm).clamp(max=1.0)
    return difference * factor.reshape(*norm.shape, *(1,) * (difference.ndim - norm.ndim))


def _project(vector: Tensor, onto: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The parts of each sample of `vector` parallel and orthogonal to `onto`, both [B, ...]; or,
    with first=2, of each channel.

    In fp64: the two parts are differences of nearly equal numbers.
    """
    a, b = vector.double().flatten(first), onto.double().flatten(first)
    unit = torch.nn.functional.normalize(b, dim=-1)
    parallel = (a * unit).sum(-1, keepdim=True) * unit
    back = lambda part: part.view_as(vector).to(vector.dtype)
    return back(parallel), back(a - parallel)
