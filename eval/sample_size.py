"""How much of a Fréchet distance is owed to the number of images: what its row says of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SHARE = 0.1  # of a value that the number of images may make up before the value is marked


@dataclass(frozen=True)
class SampleSize:
    """Fields of a row: the expected distance of two independent sets, the reason of a mark."""

    bias: float | None
    few: str
    note: str


def sample_size(
    value: float,
    counts: tuple[int, ...],
    dim: int,
    factor: Callable[[], float],
    independent: bool,
    noun: str = "images",
) -> SampleSize:
    """The remark on a Fréchet distance.

    Args:
        value: the distance.
        counts: images of both sides; of a side whose number is not known none.
        dim: width of the features.
        factor: gives `metrics.sample_bias.bias_factor` of the real images, where it is needed.
        independent: False for two sets of the same images, whose sampling errors mostly cancel.
        noun: what is counted: images, clips or frames.
    """
    fewest = min(counts)
    if fewest < dim:
        why = f"biased upwards: {fewest} {noun} for {dim} features"
        return SampleSize(None, why, why)
    bias = factor() * sum(1 / count for count in counts)
    sets = f"two independent sets of so many {noun} of one distribution"
    note = f"{sets} are about {bias:.2g} apart (arXiv 1911.07023, 1801.01401)"
    dominated = independent and bias > _SHARE * value
    few = f"{fewest:,} {noun}: about {bias:.2g} of it is their small number" if dominated else ""
    return SampleSize(bias, few, note)
