"""Throughput of a run: achieved FLOP/s, their share of its peak, and peak memory.

Model FLOP are counted once, at the start, as a plan counts them: forward and backward of one
sample, losses included, attention in its plain form, nothing that is computed twice. Optimizers are
left out, so the share is the MFU of the literature.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from vistok.train.config import TrainConfig
from vistok.train.cost.peaks import peak_of
from vistok.train.cost.plan import stages_of
from vistok.train.cost.planned import Stage


@dataclass(frozen=True)
class Throughput:
    """Turns samples/s into FLOP/s.

    Args:
        stages: FLOP of a sample by step; () = they could not be counted.
        peak: FLOP/s of all processes together; None = unknown.
        reason: why they could not be counted.
    """

    stages: tuple[Stage, ...] = ()
    peak: float | None = None
    reason: str = ""

    def flops(self, start: int, stop: int) -> float:
        """Mean FLOP of one sample over the steps start..stop-1."""
        ends = [*(stage.start for stage in self.stages[1:]), stop]
        spans = [
            (stage.flops, max(0, min(end, stop) - max(stage.start, start)))
            for stage, end in zip(self.stages, ends, strict=True)
        ]
        return sum(f * n for f, n in spans) / max(1, sum(n for _, n in spans))

    def facts(self, start: int, stop: int, per_s: float) -> dict[str, float]:
        """`tflops` over all processes and, where the peak is known, `mfu`; {} without a count."""
        if not self.stages:
            return {}
        rate = self.flops(start, stop) * per_s
        facts = {"tflops": rate / 1e12}
        return facts if self.peak is None else {**facts, "mfu": rate / self.peak}


def make_throughput(config: TrainConfig, data: Any, device: torch.device, world: int) -> Throughput:
    """Counts a run's step; one that cannot be counted gives no numbers, but `.reason`."""
    each = config.peak_tflops
    if each is None and device.type == "cuda":
        each = peak_of(torch.cuda.get_device_name(device), precision(config))
    try:
        stages = _counted(_Key(config, data))
    except Exception as error:  # a user's own part that fake tensors cannot run stops no run
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Throughput(reason=reason)
    return Throughput(stages, None if each is None else each * 1e12 * world)


def precision(config: TrainConfig) -> str:
    """The precision of most matrix products of a run."""
    if config.precision == "bf16":
        return "bf16"
    return "fp32" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def memory(device: torch.device) -> dict[str, float]:
    """`peak_memory_gb`: GiB allocated on the GPU; `peak_rss_gb`: GiB of this process in the RAM."""
    facts = {}
    if device.type == "cuda":
        facts["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # not on Windows
        return facts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB elsewhere.
    return {**facts, "peak_rss_gb": peak / (2**30 if sys.platform == "darwin" else 2**20)}


class _Key:
    """A config and its data, equal where they cost the same: many short runs count once."""

    def __init__(self, config: TrainConfig, data: Any) -> None:
        self.config, self.data = config, data
        spec = getattr(data, "spec", None)
        classes, size = getattr(data, "classes", ()), getattr(data, "size", None)
        self._key = (config.task.model_dump_json(), config.steps, repr(spec), classes, size)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._key == other._key


@lru_cache(maxsize=8)
def _counted(key: _Key) -> tuple[Stage, ...]:
    return stages_of(key.config, key.data)
