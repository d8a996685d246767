"""Base class of decoders that sample by following a rectified flow from noise.

Letters: B batch, M values, D width of the values, C channels of the output space.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.contract import required
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.selection import Record
from vistok.core.shapes import Shape
from vistok.decoders.base import Decoder
from vistok.decoders.given import GivenConfig, corrupted
from vistok.layers.flow import path
from vistok.layers.flow.guidance import Guidance, GuidanceConfig
from vistok.layers.flow.prefix import holder, with_given
from vistok.layers.flow.solvers import Solver, solve, times


class FlowSamplingConfig(Config):
    """Settings of a decoder that samples; any of them may be changed after training."""

    steps: int = Field(default=25, ge=1, le=10**5)
    """Steps of the solver."""
    solver: Solver = "euler"
    """euler asks the network once per step; midpoint and heun twice, of second order."""
    shift: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1, more of the steps are spent near the noise (SD3)."""
    guidance: GuidanceConfig = GuidanceConfig()
    given: Literal["clean", "sdedit"] = "clean"
    """First frames that are given of a clip: held clean before every step and at the end, or
    noised to the time of every step (arXiv 2108.01073)."""


class FlowDecoderConfig(Config):
    """Fields that flow decoders have in common."""

    times: path.TimeConfig = path.TimeConfig()
    """Distribution of the training times."""
    sampling: FlowSamplingConfig = FlowSamplingConfig()
    """Settings of sampling, which may be changed later."""


@dataclass(frozen=True)
class Embedded(Record):
    """Inputs of a velocity besides the noisy sample: the same at every time of a way."""

    values: Tensor  # [B, M, D], or what a decoder makes of them
    present: Tensor | None = None  # [B, M] bool; None = all
    condition: Condition | None = None
    counts: Tensor | None = None  # [B, M] int64: places that a row stands for; None = one each


class FlowDecoder(Decoder):
    """Base of decoders that follow a rectified flow from noise to the output space.

    Subclasses set `shape` (of the space), `times` and `sampling`, and implement `velocity`. What
    does not depend on time belongs into `embed` and `embed_nothing`, which run once per image.
    """

    shape: Shape
    times: path.TimeConfig = path.TimeConfig()
    sampling: FlowSamplingConfig = FlowSamplingConfig()
    given: GivenConfig | None = None
    """Training with given first frames; sampling takes them in any case."""

    def embed(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Embedded:
        """Whatever `velocity` needs of its inputs besides the noisy sample."""
        return Embedded(values, present, condition)

    def embed_nothing(self, values: Tensor, condition: Condition | None) -> Embedded:
        """The same for the unconditional prediction: no value and no condition is seen."""
        absent = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device)
        if condition is not None:
            condition = replace(condition, null=torch.ones_like(absent[:, 0]))
        return self.embed(values, absent, condition)

    def embed_guided(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> tuple[Embedded, Embedded, bool]:
        """For sampling: inputs of the conditional and of the unconditional prediction, and whether
        both shall be one batch."""
        one = self.embed(values, present, condition)
        return one, self.embed_nothing(values, condition), True

    def embed_alone(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Embedded:
        """For sampling without guidance: inputs of the conditional prediction."""
        return self.embed(values, present, condition)

    @required
    def velocity(
        self, noisy: Noisy, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Tensor:
        """noise - clean at a point of the path, of embedded inputs: [B, C, *sides]."""
        raise NotImplementedError

    def tapped(self, noisy: Noisy, embedded: Embedded) -> tuple[Tensor, dict[str, Tensor]]:
        """The velocity, and features for losses by the name of their tap."""
        e = embedded
        return self.velocity(noisy, e.values, e.present, e.condition), {}

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws:
        """time [B] and noise [B, C, *sides] of a training step, and its given frames."""
        uniform = path.uniform_numbers(index, rng.child("time"), self.times)
        time = path.sample_times(uniform, self.times)
        more = {} if self.given is None else self.given.draw(index, rng.child("given"))
        return PartDraws(time=time, noise=self.noise(index, rng.child("noise")), **more)

    def noise(self, index: Tensor, rng: Rng) -> Tensor:
        """Standard normal noise [B, C, *sides], keyed by sample."""
        return rng.normal(index, (self.shape.channels, *self.shape.sides))

    def corrupt(self, target: Tensor, draws: PartDraws) -> Noisy:
        """Clean targets [B, C, *sides] at the sampled times, with the sampled noise."""
        noise = draws.noise.to(target)
        if draws.given is not None:
            lengths = draws.given.to(target.device)
            return Noisy(corrupted(target, noise, draws), draws.time, lengths)
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
        if noisy.given is not None:
            condition = replace(condition or Condition(), given=noisy.given)
        predicted, features = self.tapped(noisy, self.embed(values, present, condition))
        predicted = predicted.float()
        return Decoded(predicted, path.clean_guess(noisy.x, predicted, noisy.time), features)

    def sample(
        self,
        values: Tensor,
        present: Tensor | None,
        condition: Condition | None,
        noise: Tensor,
        sampling: FlowSamplingConfig | None = None,
    ) -> Tensor:
        """Follow the flow from noise [B, C, *sides] to the output space.

        With guidance, both predictions of a step are one batch. The unconditional one sees no value
        and no condition. First frames of a clip are given as `condition.frames` [B, C, t, h, w],
        of the output space, with their number in `condition.given`.
        """
        sampling = sampling or self.sampling
        guidance = Guidance(sampling.guidance)
        both = None
        if sampling.guidance.scale == 1:
            one = self.embed_alone(values, present, condition)
        else:
            one, nothing, together = self.embed_guided(values, present, condition)
            both = joined(one, nothing) if together else None

        def direction(x: Tensor, time: float) -> Tensor:
            scale = sampling.guidance.scale_at(time)
            if scale == 1:
                return self._at(x, time, one)
            if both is not None:
                predicted = self._at(torch.cat([x, x]), time, both).chunk(2)
            else:
                predicted = [self._at(x, time, e) for e in (one, nothing)]
            return guidance(*predicted, scale)

        grid = times(sampling.steps, sampling.shift)
        # The sample itself stays in fp32, whatever the network computes in.
        noise = noise.to(values.device).float()
        frames = None if condition is None else condition.frames
        if frames is None:
            return solve(direction, noise, grid, sampling.solver)
        frames = frames.to(noise)
        hold = holder(frames, noise, sampling.given)
        x = solve(direction, noise, grid, sampling.solver, hold)
        return with_given(x, frames) if sampling.given == "clean" else x

    def _at(self, x: Tensor, time: float, e: Embedded) -> Tensor:
        """The velocity of all samples at one time, fp32."""
        times = x.new_full((len(x),), time)
        return self.tapped(Noisy(x, times), e)[0].float()


def joined(a: Embedded, b: Embedded) -> Embedded:
    """One batch of both, a in front."""
    present = None
    if a.present is not None or b.present is not None:
        present = torch.cat([_all(one) for one in (a, b)])
    counts = None if a.counts is None else torch.cat([a.counts, b.counts])
    return Embedded(torch.cat([a.values, b.values]), present, _conditions(a, b), counts)


def _all(embedded: Embedded) -> Tensor:
    """[B, M] bool: values that are present."""
    if embedded.present is not None:
        return embedded.present
    return embedded.values.new_ones(embedded.values.shape[:2], dtype=torch.bool)


def _conditions(a: Embedded, b: Embedded) -> Condition | None:
    """The conditions of both batches in one; they differ in `null` alone."""
    if a.condition is None:
        return None
    null = a.condition.null
    if null is None:
        null = torch.zeros_like(b.condition.null)
    doubled = {f.name: getattr(a.condition, f.name) for f in fields(Condition)}
    doubled = {n: torch.cat([v, v]) for n, v in doubled.items() if isinstance(v, Tensor)}
    return replace(a.condition, **{**doubled, "null": torch.cat([null, b.condition.null])})
