"""The records of a plan: plain facts about a run, and their arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vistok.tokens import Tokens, TokenSpec

_LABEL = 8  # bytes of a cached label


@dataclass(frozen=True)
class Work:
    """FLOP of one sample in one phase of a step; 2 for a multiply-add."""

    forward: float  # losses and their networks included
    backward: float


@dataclass(frozen=True)
class Part:
    """A network, or a piece of one."""

    name: str
    trained: int  # parameters
    frozen: int  # parameters that no gradient moves: frozen networks, EMA codebooks
    flops: float  # of its forward passes in a late step, for one sample


@dataclass(frozen=True)
class Stage:
    """Steps between two switches (a loss or a discriminator that starts late) that cost alike."""

    start: int  # first step
    flops: float  # of one sample's share of a step, forward and backward, losses included


@dataclass(frozen=True)
class Memory:
    """Bytes on one process; an estimate: kernels' own buffers and fragmentation come on top."""

    weights: int  # buffers and frozen networks included
    gradients: int  # and the buckets of several processes
    optimizer: int
    ema: int
    activations: int  # of a micro-batch, attention fused
    activations_plain: int  # the same where attention keeps its scores: bf16 on CPUs
    checkpoint: int  # on disk

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations


@dataclass(frozen=True)
class Schedule:
    """Arithmetic of a run."""

    steps: int
    batch: int  # samples of a step, over all processes
    world: int  # processes
    accumulate: int  # micro-batches of a process
    warmup: int  # steps
    count: int | None  # training samples; None = unknown
    val_count: int | None  # that a validation sees
    validations: int
    checkpoints: int
    kept: int  # checkpoints on disk at a time

    @property
    def samples(self) -> int:
        return self.steps * self.batch

    @property
    def per_process(self) -> int:
        return self.batch // self.world

    @property
    def micro(self) -> int:
        return self.per_process // self.accumulate

    @property
    def epochs(self) -> float | None:
        return None if self.count is None else self.samples / self.count


@dataclass(frozen=True)
class Plan:
    name: str
    folder: str
    task: str
    sides: tuple[int, ...] | None  # (H, W) of the images it sees, (T, H, W) of clips
    spec: TokenSpec | None
    parts: tuple[Part, ...]
    model: str  # name of the network that is trained first
    forward: float  # FLOP of one sample through it
    work: Mapping[str, Work]  # by phase, in the last step
    stages: tuple[Stage, ...]
    optimizer_flops: float  # of a step
    precision: str
    memory: Memory
    schedule: Schedule
    notes: tuple[str, ...]  # what could not be known, what never happens

    @property
    def flops(self) -> float:
        """FLOP of the whole run, optimizers left out."""
        ends = [*(stage.start for stage in self.stages[1:]), self.schedule.steps]
        spans = zip(self.stages, ends, strict=True)
        return sum(s.flops * (end - s.start) for s, end in spans) * self.schedule.batch


@dataclass(frozen=True)
class JobPlan:
    """The files that a job will write."""

    name: str
    folder: str
    tokenizer: str | None
    spec: TokenSpec | None  # None = the tokenizer is not here
    sides: tuple[int, ...] | None  # (H, W) of the images that are read, (T, H, W) of clips
    caches: bool  # True: tokens are what it writes
    counts: Mapping[str, int]  # samples to write, by split
    flops: float | None  # of encoding one sample
    notes: tuple[str, ...]

    @property
    def sample_bytes(self) -> int | None:
        if self.spec is None or not self.caches:
            return None
        if not self.spec.vocab:
            return 4 * self.spec.length * self.spec.dim + _LABEL
        return Tokens.dtype(self.spec).itemsize * self.spec.length * len(self.spec.vocab) + _LABEL
