"""Speed of sampling from a generator: with and without its caches, with and without its fast path,
in each precision and at each size of batch, and its share of what the memory allows.

The bound: a step reads every weight of the transformer and the head once, for all rows together, at
the rate at which this machine sums up a large tensor, measured before and after each call. Fast and
plain path are called in turn, and ratios are medians of pairs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vistok.core.records import Condition
from vistok.eval.results.rows import Row
from vistok.eval.speed.clock import Clock
from vistok.generators import Generator
from vistok.runtime.precision import dtype_of, has_bf16
from vistok.tokens import Tokens

MakeRow = Callable[..., Row]  # (metric, value, precision=, count=, note=, sampling=, seed=)

_BYTES = 2**28  # of the tensor that is summed up


def samples(generator: Generator, count: int, changes: dict[str, Any]) -> Callable[..., Any]:
    """Function that samples `count` sequences, of the classes in turn, under changed settings.

    Its attribute `plain` does the same without packed weights, whose products have no FLOP count.
    """
    device = next(generator.parameters()).device
    index, classes = torch.arange(count, device=device), generator.num_classes
    condition = Condition(label=index % classes if classes else None)
    if generator.config.condition.first_frames is not None:  # any codes cost the same
        zeros = torch.zeros(count, generator.spec.length, len(generator.spec.vocab))
        codes = zeros.to(device, Tokens.dtype(generator.spec))
        condition = replace(condition, prefix=Tokens(generator.spec, indices=codes))

    def sample(**more: Any) -> Any:
        return generator.sample(condition, index=index, sampling={**changes, **more})

    fast = "fast" in type(generator.sampling).model_fields
    sample.plain = (lambda **more: sample(**{**more, "fast": False})) if fast else sample
    return sample


def fast_rows(
    generator: Generator,
    clock: Clock,
    asked: Any,
    batch: int,
    row: MakeRow,
    unit: str = "image",
) -> list[Row]:
    """Rows of both paths; [] for a generator that has but one.

    Args:
        asked: a SpeedConfig. batch: samples at a time where it names no sizes. unit: the noun of a
            sample, "image" or "clip".
    """
    if "fast" not in type(generator.sampling).model_fields:
        return []
    rows: list[Row] = []
    for precision in asked.sampling_precision or _precisions(clock.device):
        for size in asked.sampling_batch or (batch,):
            rows += _rows(generator, clock, asked.sampling, precision, size, row, unit)
    return rows


def _precisions(device: torch.device) -> tuple[str, ...]:
    return ("fp32", "bf16") if has_bf16(device) else ("fp32",)


def _rows(
    generator: Generator,
    clock: Clock,
    changes: dict[str, Any],
    precision: str,
    size: int,
    row: MakeRow,
    unit: str,
) -> list[Row]:
    changes = {**changes, "cache": True, "precision": precision}
    sample = samples(generator, size, changes)
    with torch.no_grad():
        for fast in (True, False):
            clock.once(lambda fast=fast: sample(fast=fast))
        fast, plain, rates = [], [], [_read_rate(clock)]
        for _ in range(clock.repeats):
            fast.append(clock.once(lambda: sample(fast=True)))
            plain.append(clock.once(lambda: sample(fast=False)))
            rates.append(_read_rate(clock))
    common = {"precision": precision, "count": size, "seed": 0}

    def of(name: str, value: float, note: str = "", path: bool = True) -> Row:
        settings = generator.settings({**changes, "fast": path}).model_dump(mode="json")
        return row(name, value, note=note, sampling={"generator": settings}, **common)

    rows = [
        of(f"sample-fast-{unit}s/s", size / statistics.median(fast)),
        of(f"sample-plain-{unit}s/s", size / statistics.median(plain), path=False),
        of(
            "sample-fast-gain",
            statistics.median(slow / quick for slow, quick in zip(plain, fast, strict=True)),
            f"{unit}s/s on packed weights, or a captured step, over those without",
        ),
    ]
    if generator.settings(changes).jacobi is not None:
        return [*rows, *_jacobi(generator, clock, sample, of, unit)]
    steps = int(generator.passes.max())  # fewer than codes where a step predicts several
    read = weights_read(generator) * dtype_of(precision).itemsize * steps
    share = _share(read, fast, rates)
    note = f"of {statistics.median(rates) / 1e9:.1f} GB/s, {read / 1e9:.3g} GB of weights to read"
    return [*rows, of("sample-bandwidth-share", share, note)]


def _jacobi(
    generator: Generator, clock: Clock, sample: Callable[..., Any], of: MakeRow, unit: str
) -> list[Row]:
    """Passes of Jacobi decoding and its gains over one position in each pass; both are called in
    turn."""
    with torch.no_grad():
        pairs = [(clock.once(sample), clock.once(lambda: sample(jacobi=None)))]
        steps = generator.passes.double().mean().item()
        for _ in range(clock.repeats):
            pairs.append((clock.once(sample), clock.once(lambda: sample(jacobi=None))))
        sample()
    passes = generator.passes.double().mean().item()
    gain = statistics.median(slow / quick for quick, slow in pairs[1:])
    note = f"of the network for each sample; {steps:.0f} without jacobi"
    return [
        of("sample-passes", passes, note),
        of("sample-passes-gain", steps / passes, "passes without over with jacobi"),
        of("sample-jacobi-gain", gain, f"{unit}s/s with over without jacobi"),
    ]


def weights_read(generator: Generator) -> int:
    """Number of weights that a step multiplies by: linear layers of the transformer and the
    head."""
    parts = (generator.transformer, generator.head)
    layers = (one for part in parts for one in part.modules() if isinstance(one, nn.Linear))
    return sum(layer.weight.numel() for layer in layers)


def _read_rate(clock: Clock) -> float:
    """Bytes per second of summing up a large tensor: the second of two tries."""
    tensor = torch.ones(_BYTES // 4, device=clock.device)
    clock.once(tensor.sum)
    return _BYTES / clock.once(tensor.sum)


def _share(read: int, seconds: Sequence[float], rates: Sequence[float]) -> float:
    """Median share of the bytes per second in the mean of the rates around each call."""
    pairs = zip(seconds, rates, rates[1:], strict=False)
    return statistics.median(
        read / spent / ((before + after) / 2) for spent, before, after in pairs
    )
