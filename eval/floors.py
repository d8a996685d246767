"""The floor under a Fréchet distance: what other real images have, at the same count.

A set that looks as real as real images are is still not at distance 0 of a reference of other
images. So beside each distance stands that of real images which are not in its reference: held-out
images beside a reference of training images, training images beside the held-out ones (rFID,
gFID-val). They are as many as the measured set has; a keyed choice of a larger set; of a smaller
one all of it, which the floor's count says, and such a floor judges nothing. Where the data have no
second set of real images there is no floor.

Reconstructions share their images with the reference, so a good tokenizer lies below the floor of
rFID. That is no mistake; it means that the network sees less of a difference to the originals than
between two sets of real images.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from vistok.core.rng import Rng
from vistok.eval.context import Context
from vistok.eval.reference.real import RealStats
from vistok.eval.reference.training_set import Picked, TrainingSet
from vistok.eval.results.rows import Floor
from vistok.metrics import frechet_distance


def floor_of(
    context: Context,
    reference: RealStats,
    count: int,
    training: TrainingSet | str | None,
    network: Any = None,
    ddof: int = 1,
) -> Floor | None:
    """The distance of `count` real images (or clips) to a reference that they are not in; None
    where the data have none. Every rank calls.

    Args:
        training: the data's training images, or why there are none.
        network: of clips; None: the context's feature network.
        ddof: of the covariances.
    """
    views = context.views
    network = context.features if network is None else network
    key = ("floor", id(reference.stats), count, network.name, network.preprocess, ddof)
    if key not in views.memo:
        others = _others(context, reference, count, training)
        floor = None
        if others is not None:
            real = others.stats(context, network)
            with warnings.catch_warnings():  # the row's `few` says it
                warnings.simplefilter("ignore")
                value = frechet_distance(real.stats, reference.stats, ddof)
            floor = Floor(value=value, count=real.stats.count, reference=real.reference)
        views.memo[key] = (floor, reference.stats)  # which is kept, so that its id stays its own
    return views.memo[key][0]


def _others(
    context: Context, reference: RealStats, count: int, training: TrainingSet | str | None
) -> TrainingSet | None:
    """`count` real images that are not in the reference, or all there are."""
    views = context.views
    if reference.reference.manifest != views.reference.manifest:
        dataset = _First(views.dataset, min(count, len(views)), len(views))
        return TrainingSet(dataset, dataset.record())
    if not isinstance(training, TrainingSet):
        return None
    whole = training.dataset
    whole = whole.inner if isinstance(whole, Picked) else whole
    dataset = Picked(whole, count) if count < len(whole) else whole
    return TrainingSet(dataset, dataset.record())


class _First(Picked):
    """A keyed choice of the first images of a set."""

    def __init__(self, inner: Any, count: int, first: int) -> None:
        super().__init__(inner, count)
        order = Rng(0, "held-out images of a floor").generator().permutation(first)
        self.rows = np.sort(order[:count])
