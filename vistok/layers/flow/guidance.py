"""Classifier-free guidance of a velocity, and its adaptive projected form.

cfg (arXiv 2207.12598): u + s (c - u). apg (arXiv 2410.02416): the difference c - u gets momentum
over the steps, its norm is bounded, and only its part orthogonal to the conditional prediction is
added in full. Letters: B batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config


class GuidanceConfig(Config):
    """Guidance of a decoder or generator that predicts velocities."""

    kind: Literal["cfg", "apg"] = "cfg"
    scale: float = Field(default=1.0, ge=0, le=1e4, allow_inf_nan=False)
    """s; 1 = the conditional prediction alone, which costs half."""
    momentum: float = Field(default=-0.5, gt=-1, lt=1, allow_inf_nan=False)
    """apg: share of the earlier differences that is added (negative: subtracted)."""
    norm_threshold: float = Field(default=2.5, gt=0, allow_inf_nan=False)
    """apg: bound of a sample's difference, as a Euclidean norm."""
    eta: float = Field(default=0.0, ge=0, le=1e4, allow_inf_nan=False)
    """apg: share of the difference's part parallel to the conditional prediction."""


class Guidance:
    """Guidance along one sampling run; apg keeps a running difference from step to step."""

    def __init__(self, config: GuidanceConfig) -> None:
        self.config = config
        self._running: Tensor | None = None

    def __call__(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Both predictions [B, ...] -> the guided one [B, ...]."""
        scale, difference = self.config.scale, conditional - unconditional
        if self.config.kind == "cfg":
            return unconditional + scale * difference
        if self._running is None:
            self._running = difference
        else:
            self._running = difference + self.config.momentum * self._running
        bounded = _bounded(self._running, self.config.norm_threshold)
        parallel, orthogonal = _project(bounded, conditional)
        return conditional + (scale - 1) * (orthogonal + self.config.eta * parallel)


def _bounded(difference: Tensor, threshold: float) -> Tensor:
    """Each sample of [B, ...] scaled down to a Euclidean norm of `threshold` at most."""
    norm = difference.flatten(1).norm(dim=1).clamp_min(torch.finfo(difference.dtype).tiny)
    factor = (threshold / norm).clamp(max=1.0)
    return difference * factor.reshape(-1, *(1,) * (difference.ndim - 1))


def _project(vector: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of each sample of `vector` parallel and orthogonal to `onto`, both [B, ...].

    In fp64: the two parts are differences of nearly equal numbers.
    """
    a, b = vector.double().flatten(1), onto.double().flatten(1)
    unit = torch.nn.functional.normalize(b, dim=1)
    parallel = (a * unit).sum(1, keepdim=True) * unit
    back = lambda part: part.view_as(vector).to(vector.dtype)
    return back(parallel), back(a - parallel)
