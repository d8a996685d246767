"""The config of `vistok eval speed`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.eval.speed.lookup import PEER_GB


class SpeedConfig(Config):
    """Config of a measurement of speed."""

    report: str | None = None
    """JSON file for the numbers; null: they are only printed."""
    overwrite: bool = False
    """true: a file there is replaced even if it does not hold such numbers of these runs."""
    batch: tuple[int, ...] = ()
    """Images or clips at a time: one number, or for configs several: [4, 16]; [] = their own."""
    precision: tuple[Literal["fp32", "bf16"], ...] = ()
    """Precisions of configs: [fp32, bf16]; [] = their own."""
    sampling_batch: tuple[int, ...] = ()
    """Samples at a time of generators' fast and plain path: [1, 8]; [] = as many as images."""
    sampling_precision: tuple[Literal["fp32", "bf16"], ...] = ()
    """Precisions of these two; [] = fp32, and bf16 where the hardware has it."""
    lookup: bool = False
    """true: also the table of codebook searches."""
    peer_gb: float = PEER_GB
    """GB of scores up to which `lookup` runs the other library; 4.1 lets it run every size."""
    evaluation: bool = False
    """true: also how fast the runs are evaluated: features, rFID, quick pFID."""
    features: str = "vistok-cnn"
    """Feature network of that: vistok-cnn, inception, dinov2, clip."""
    weights: str | None = None
    """Weight file of that network, if it is not in the usual place."""
    loading: tuple[str, ...] = ()
    """Folders of images, parquet or videos whose loader is measured against bare decoding too."""
    repeats: int = Field(default=5, ge=1)
    """Timed calls, of which the median counts."""
    data: dict[str, Any] = {}
    """Keys of the data config, laid over those of each run."""
    sampling: dict[str, Any] = {}
    """Changes of the generator's own sampling settings: sampling.top_k=100."""
    decoder_sampling: dict[str, Any] = {}
    """Changes of the sampling settings of decoders that sample: decoder_sampling.steps=25."""
    device: str | None = None
    """Device: cpu, cuda, ...; null = a GPU if there is one."""

    @field_validator(
        "batch", "precision", "sampling_batch", "sampling_precision", "loading", mode="before"
    )
    @classmethod
    def _one(cls, value: Any) -> Any:
        """A single value stands for a list of one."""
        return (value,) if isinstance(value, str | int) else value

    @field_validator("batch", "sampling_batch")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value):
            raise InputError("expected sizes of 1 or more, like [4, 16]")
        return value
