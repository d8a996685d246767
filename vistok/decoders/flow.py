"""Base class of decoders that sample by following a rectified flow from noise.

Letters: B batch, M values, D width of the values, C channels of the output space.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.decoders.base import Decoder
from vistok.layers.flow import path
from vistok.layers.flow.guidance import Guidance, GuidanceConfig
from vistok.layers.flow.solvers import Solver, solve, times


class FlowSamplingConfig(Config):
    """Settings of a decoder that samples; any of them may be changed after training."""

    steps: int = Field(default=25, ge=1, le=10**5)
    """Steps of the solver."""
    solver: Solver = "euler"
    shift: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1, more of the steps are spent near the noise (SD3)."""
    guidance: GuidanceConfig = GuidanceConfig()


class FlowDecoder(Decoder):
    """Base of decoders that follow a rectified flow from noise to the output space.

    Subclasses set `shape` (of the space), `times` and `sampling`, and implement `velocity`.
    """

    shape: Shape
    times: path.TimeConfig = path.TimeConfig()
    sampling: FlowSamplingConfig = FlowSamplingConfig()

    def velocity(
        self, noisy: Noisy, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Tensor:
        """noise - clean at a point of the path: [B, C, *sides]."""
        raise NotImplementedError

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws:
        """time [B] and noise [B, C, *sides] of a training step."""
        time = path.sample_times(rng.child("time").uniform(index), self.times)
        return PartDraws(time=time, noise=self.noise(index, rng.child("noise")))

    def noise(self, index: Tensor, rng: Rng) -> Tensor:
        """Standard normal noise [B, C, *sides], keyed by sample."""
        return rng.normal(index, (self.shape.channels, *self.shape.sides))

    def corrupt(self, target: Tensor, draws: PartDraws) -> Noisy:
        """Clean targets [B, C, *sides] at the sampled times, with the sampled noise."""
        noise = draws.noise.to(target)
        return Noisy(path.interpolate(target, noise, draws.time), draws.time)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        if noisy is None:
            raise InputError(
                "this decoder samples: give forward a noisy target, or call sample (or "
                "Tokenizer.decode) for pixels"
            )
        predicted = self.velocity(noisy, values, present, condition).float()
        return Decoded(predicted, path.clean_guess(noisy.x, predicted, noisy.time))

    def sample(
        self,
        values: Tensor,
        present: Tensor | None,
        condition: Condition | None,
        noise: Tensor,
        sampling: FlowSamplingConfig | None = None,
    ) -> Tensor:
        """Follow the flow from noise [B, C, *sides] to the output space.

        With guidance, the unconditional prediction sees no value and no condition.
        """
        sampling = sampling or self.sampling
        guided = sampling.guidance.scale != 1
        guidance = Guidance(sampling.guidance)
        absent = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device)
        nothing = None
        if condition is not None:
            nothing = replace(condition, null=torch.ones_like(absent[:, 0]))

        def direction(x: Tensor, time: Tensor) -> Tensor:
            predicted = self.velocity(Noisy(x, time), values, present, condition)
            if not guided:
                return predicted
            return guidance(predicted, self.velocity(Noisy(x, time), values, absent, nothing))

        grid = times(sampling.steps, sampling.shift)
        return solve(direction, noise.to(values), grid, sampling.solver)
