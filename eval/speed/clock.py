"""Timing against the machine's own limit: matrix products, measured before and after each call.

A machine's rate drifts (other tenants, heat, turbo), so the limit is measured on both sides of
every timed call and the share is the median over the calls, not a quotient of two medians.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from vistok.core.verbosity import quiet

Shape = tuple[int, int, int]  # rows, inner, columns of a product

_SIDE = 2048  # of the square matrices whose product is the machine's limit
_OWN = 3  # of a model's own shapes, those with the most FLOP


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats."""

    seconds: float
    limit: float  # FLOP/s of square products
    share: float  # of FLOP/s in the limit around each call; 0 if the call has no count
    own_share: float  # the same for products of the shapes given; 0 without shapes


class Clock:
    """Times functions: once to warm up, then some repeats."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.limits: dict[torch.dtype, list[float]] = {}
        self._matrices: dict[tuple, torch.Tensor] = {}
        self.bar = tqdm(desc="speed", unit="call", leave=False, dynamic_ncols=True, disable=quiet())

    def once(self, function: Callable[[], Any]) -> float:
        """Seconds of one call."""
        started = time.perf_counter()
        function()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.bar.update()
        return time.perf_counter() - started

    def time(
        self,
        function: Callable[[], Any],
        kind: torch.dtype,
        count: int = 0,
        shapes: Sequence[Shape] = (),
    ) -> Timing:
        """The timing of a function that costs `count` FLOP in products of type `kind`."""
        self.once(function)
        seconds, limits, own = [], [], []
        for turn in range(self.repeats + 1):
            limits.append(self.rate(kind, [(self.side,) * 3]))
            own.append(self.rate(kind, shapes) if shapes else 0.0)
            if turn < self.repeats:
                seconds.append(self.once(function))
        self.limits.setdefault(kind, []).extend(limits)
        shares = [_shares(count, seconds, rates) for rates in (limits, own)]
        return Timing(statistics.median(seconds), statistics.median(limits), *shares)

    @property
    def side(self) -> int:
        """Side of the square matrices whose product gives the machine's rate."""
        return _SIDE * (4 if self.device.type == "cuda" else 1)

    def rate(self, kind: torch.dtype, shapes: Sequence[Shape]) -> float:
        """FLOP/s of products of these shapes together: the second of two tries each."""
        count = total = 0.0
        with torch.inference_mode():
            for rows, inner, columns in shapes:
                a, b = self._matrix(kind, rows, inner), self._matrix(kind, inner, columns)
                self.once(lambda a=a, b=b: a @ b)
                total += self.once(lambda a=a, b=b: a @ b)
                count += 2.0 * rows * inner * columns
        return count / total

    def _matrix(self, kind: torch.dtype, rows: int, columns: int) -> torch.Tensor:
        key = (kind, rows, columns)
        if key not in self._matrices:
            self._matrices[key] = torch.randn(rows, columns, device=self.device).to(kind)
        return self._matrices[key]

    def close(self) -> None:
        self.bar.close()


def _shares(count: int, seconds: Sequence[float], rates: Sequence[float]) -> float:
    """Median share of `count` FLOP a call in the mean of the rates before and after it."""
    pairs = zip(seconds, rates, rates[1:], strict=False)
    return statistics.median(
        count / spent / ((before + after) / 2) if before and after else 0.0
        for spent, before, after in pairs
    )


def flops(function: Callable[[], Any]) -> int:
    """FLOP of one call. Attention is counted in its plain form: fused CPU kernels have no count."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def largest_products(function: Callable[[], Any]) -> list[Shape]:
    """The shapes of matrix products on which a call spends the most FLOP; [] if it has none."""
    with _Products() as found:
        function()
    return [shape for shape, _ in found.spent.most_common(_OWN)]


class _Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.spent: Counter[Shape] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        skip = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}.get(function)
        if skip is not None:
            a, b = args[skip], args[skip + 1]
            shape = (a.shape[0], a.shape[1], b.shape[1])
            self.spent[shape] += shape[0] * shape[1] * shape[2]
        return function(*args, **(kwargs or {}))
