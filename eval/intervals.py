"""Intervals of numbers whose images are seen once: over images as a sample of all there could be.

Means over images have the standard error of a mean; Fréchet distances that of their influence
values (`metrics.influence`), from a keyed subset of the vectors. An interval is of the number's
expectation at its count; the bias of a small count is another matter, which the row's `bias` has.
A clip is one sample, whatever its frames.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, network_of
from vistok.eval.results.spread import around
from vistok.eval.resumable import digest
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats
from vistok.metrics.influence import FeatureSample, drawn_error, error_of, paired_influences


def of_mean(context: Context, value: float, error: float) -> dict[str, Any]:
    """Fields `interval` and `varies` of a row with this value and standard error; {} for none."""
    interval = around(value, error)
    return {} if interval is None else {"interval": interval, "varies": f"{context.unit}s"}


def sample_of(context: Context, dim: int, numbers: int | Tensor, frame_wise: bool = True) -> Any:
    """A store for some of the vectors of a set of samples (images or clips); see `FeatureSample`.

    Args:
        frame_wise: False for a network of whole clips, which gives one vector each.
    """
    clip = len(context.sides) == 3 and frame_wise
    return FeatureSample(dim, numbers, context.sides[0] if clip else 1)


def error_of_drawn(sample: FeatureSample, own: FeatureStats, other: FeatureStats) -> float:
    """Standard error of the distance of generated samples to a fixed reference, every rank calls.

    Args:
        own, other: over all ranks.
    """
    return drawn_error(sample.gathered(), sample.total, own, other)


def influences_of_images(
    context: Context,
    network: Any,
    sample: FeatureSample,
    own: FeatureStats,
    other: FeatureStats,
    real: FeatureSample | None = None,
) -> Tensor:
    """[2, n]: influences of images on the distance of what was made of them to all of them, every
    rank calls.

    Args:
        real: the same vectors of the real images; None: they are looked at here.
    """
    theirs = _real(context.views, network, sample) if real is None else real.gathered()
    return paired_influences(sample.gathered(), theirs, own, other)


def error_of_images(*arguments: Any, **rest: Any) -> float:
    """Standard error of that distance; arguments of `influences_of_images`."""
    return error_of(influences_of_images(*arguments, **rest), arguments[2].total)


def _real(views: Views, network: Any, sample: FeatureSample) -> Tensor:
    """[n, T, D]: vectors of the real images of a sample's numbers, looked at once for all runs."""
    about = {**network_of(network).model_dump(), "of": sample.numbers.tolist()}
    key = ("real sample", digest(about))
    if key not in views.memo:
        found = []
        for numbers in sample.numbers.split(views.batch):
            found.append(network(to_uint8(frames(views.pick(numbers.tolist())))).cpu().float())
        views.memo[key] = torch.cat(found).unflatten(0, (-1, sample.together))
    return views.memo[key]
