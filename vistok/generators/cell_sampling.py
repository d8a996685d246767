"""Sampling of continuous tokens cell by cell: settings, and the state of one run.

Letters: B samples, n positions of a cell, C channels, D width, R rows (B, or 2B with guidance:
conditional, then unconditional).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.layers.attention import KVCache
from vistok.layers.flow.solvers import Solver, solve, solve_stochastic, times, times_to_last
from vistok.runtime.precision import Precision, dtype_of

if TYPE_CHECKING:
    from vistok.generators.flow_ar import FlowAR

Time = Annotated[float, Field(ge=0, le=1)]


class FlowARSampling(GuidanceConfig):
    """Sampling settings of flow_ar; the steps of the guidance schedule are cells."""

    guidance_schedule: Literal["constant", "linear", "power", "cosine"] = "linear"
    """Growth of the scale from `guidance_start` to `guidance`, from the first cell to the last."""
    guidance_times: tuple[Time, Time] = (0.0, 1.0)
    """Times, first the one nearer to the data, between which guidance acts inside a cell."""
    solver: Literal["stochastic"] | Solver = "stochastic"
    """stochastic: Euler-Maruyama steps, which add noise (xAR); euler, midpoint, heun: of the
    ordinary equation."""
    steps: int = Field(default=50, ge=1, le=10_000)
    """Steps of a cell; each evaluates the network once (midpoint and heun: twice)."""
    last_time: float = Field(default=0.04, gt=0, lt=1)
    """stochastic: time before the last step, which adds no noise; the others are evenly spaced from
    1 to it."""
    diffusion: float = Field(default=2.0, ge=0, le=100)
    """stochastic: the diffusion coefficient is this times the time; 0 adds no noise."""
    time_shift: float = Field(default=1.0, gt=0, le=100)
    """Other solvers: above 1 spends more of the steps near the noise (SD3)."""
    cache: bool = True
    """Keep keys and values of finished cells; false runs all of them at every step."""
    precision: Precision | None = None
    """Precision of the network: fp32, bf16, or auto; null = as the weights are. The state of a
    solver is fp64."""

    @model_validator(mode="after")
    def _ordered_times(self) -> FlowARSampling:
        low, high = self.guidance_times
        if low > high:
            raise InputError(f"guidance_times=[{low:g}, {high:g}]: expected the smaller time first")
        return self


class CellSampling:
    """State of one sampling run: the finished cells, and what attention keeps of them.

    Args:
        model: in evaluation mode.
        condition: of the B samples.
    """

    def __init__(
        self, model: FlowAR, condition: Condition, samples: int, settings: FlowARSampling
    ) -> None:
        self.model, self.samples, self.settings = model, samples, settings
        self.vector = model.vector(condition, samples)
        if settings.guided and model.condition is not None:
            self.vector = torch.cat([self.vector, model.vector(Condition(), samples)])
        self.done: list[Tensor] = []
        self.caches: list[list[KVCache]] | None = None
        if settings.cache and len(model.cells) > 1:
            capacity = model.spec.length
            self.caches = [
                stage.transformer.new_caches(len(self.vector), capacity, self.vector)
                for stage in model.stages
            ]
        self.grid = (
            times_to_last(settings.steps, settings.last_time)
            if settings.solver == "stochastic"
            else times(settings.steps, settings.time_shift)
        )

    def sample(self, cell: int, noise: Callable[[int, int], Tensor]) -> Tensor:
        """The next cell [B, n, C], fp32.

        Args:
            noise: As of `FlowAR.walked`.
        """
        device, settings = self.vector.device, self.settings
        # MPS has no fp64.
        kind = torch.float32 if device.type == "mps" else torch.float64
        start = noise(cell, 0).to(device, kind)
        if cell and self.caches is not None:
            self._evaluate(self.done[-1], 0.0, cell - 1, keep=True)
        last = max(len(self.model.cells) - 1, 1)
        scale = settings.scale_at(cell / last if len(self.model.cells) > 1 else 1.0)

        def velocity(x: Tensor, time: float) -> Tensor:
            low, high = settings.guidance_times
            found = self._evaluate(x.float(), time, cell).to(x.dtype)
            return guide(found, scale if low <= time <= high else 1.0, self.samples)

        if settings.solver == "stochastic":
            more = lambda step: noise(cell, step + 1).to(device)
            x = solve_stochastic(velocity, start, self.grid, more, settings.diffusion)
        else:
            x = solve(velocity, start, self.grid, settings.solver)
        self.done.append(x.float())
        return self.done[-1]

    def _evaluate(self, x: Tensor, time: float, cell: int, keep: bool = False) -> Tensor:
        """Velocities [R, n, C] of a cell x [B, n, C] behind the finished ones.

        Args:
            keep: its keys and values stay in the caches.
        """
        model, rows = self.model, len(self.vector) // self.samples
        with self._precision():
            if self.caches is not None:
                at = torch.full((len(self.vector), 1), time, device=x.device)
                x = x.repeat(rows, 1, 1)
                found = model.run(x, at, self.vector, slice(cell, cell + 1), self.caches)
                if not keep:
                    for cache in (one for stage in self.caches for one in stage):
                        cache.length = model.starts[cell]
                return found
            at = torch.zeros(len(self.vector), cell + 1, device=x.device)
            at[:, -1] = time
            x = torch.cat([*self.done[:cell], x], dim=1).repeat(rows, 1, 1)
            found = model.run(x, at, self.vector, slice(0, cell + 1))
            return found[:, model.starts[cell] :]

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        dtype = dtype_of(self.settings.precision)
        if dtype is None or dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.vector.device.type, dtype=dtype)
