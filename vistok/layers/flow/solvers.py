"""Solvers of differential equations from noise (t = 1) to data (t = 0), ordinary and stochastic.

A velocity is any function (x [B, ...], time) -> [B, ...]; nothing here knows a network. All samples
are at one time, a number of Python's, so that nothing waits for a GPU to know it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Solver = Literal["euler", "midpoint", "heun"]
Hold = Callable[[Tensor, float], Tensor]


def times(steps: int, shift: float = 1.0) -> list[float]:
    """steps + 1 times from 1 to 0, evenly spaced, then t -> shift t / (1 + (shift - 1) t).

    A shift above 1 spends more of the steps near the noise (SD3, arXiv 2403.03206, eq. 23).
    """
    even = [1 - i / steps for i in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in even]


def solve(
    velocity: Velocity,
    noise: Tensor,
    grid: list[float],
    solver: Solver = "euler",
    hold: Hold | None = None,
) -> Tensor:
    """Follow `velocity` from noise [B, ...] through the times of `grid`; the last x [B, ...].

    euler asks the velocity once per step, midpoint and heun twice (heun's last step, to time 0, is
    an Euler step: a network is not asked about clean data).

    Args:
        hold: Function (x, time) that sets what is known of x, at the start of every step and
            wherever else the velocity is asked.
    """
    x, hold = noise, hold or _as_it_is
    for now, then in itertools.pairwise(grid):
        step, x = then - now, hold(x, now)
        slope = velocity(x, now)
        if solver == "midpoint":
            middle = now + step / 2
            slope = velocity(hold(x + step / 2 * slope, middle), middle)
        elif solver == "heun" and then > 0:
            slope = (slope + velocity(hold(x + step * slope, then), then)) / 2
        x = x + step * slope
    return x


def times_to_last(steps: int, last: float) -> list[float]:
    """steps + 1 times: `steps` from 1 to `last`, evenly spaced, then 0 (SiT, arXiv 2401.08740)."""
    return [*torch.linspace(1.0, last, steps, dtype=torch.float64).tolist(), 0.0]


def solve_stochastic(
    velocity: Velocity,
    noise: Tensor,
    grid: list[float],
    step_noise: Callable[[int], Tensor],
    diffusion: float = 2.0,
) -> Tensor:
    """Follow the stochastic equation with the velocity's marginals by Euler-Maruyama steps; the
    last x [B, ...]. Every time of `grid` but the last is above 0.

    With w = diffusion t and the score s of the straight path, s = -((1 - t) v + x) / t, a step of
    length h backwards is x - h (v - w s / 2) + sqrt(w h) noise (SiT, arXiv 2401.08740); the step to
    time 0 adds no noise.

    Args:
        step_noise: Standard normal numbers [B, ...] of each step 0, 1, ... but the last.
    """
    x = noise
    for number, (now, then) in enumerate(itertools.pairwise(grid)):
        slope, spread = velocity(x, now), diffusion * now
        score = -((1 - now) * slope + x) / now
        x = x + (then - now) * (slope - 0.5 * spread * score)
        if then > 0:
            x = x + math.sqrt(spread * (now - then)) * step_noise(number).to(x)
    return x


def _as_it_is(x: Tensor, time: float) -> Tensor:
    return x
