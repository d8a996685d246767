"""Ordinary differential equation solvers from noise (t = 1) to data (t = 0).

A velocity is any function (x [B, ...], time) -> [B, ...]; nothing here knows a network. All samples
are at one time, a number of Python's, so that nothing waits for a GPU to know it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

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


def _as_it_is(x: Tensor, time: float) -> Tensor:
    return x
