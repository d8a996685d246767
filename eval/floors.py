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

from vistok.eval.context import Context
from vistok.eval.reference.real import UNKNOWN, RealStats
from vistok.eval.reference.training_set import Picked, TrainingSet
from vistok.eval.results.rows import Floor
from vistok.eval.resumable import digest
from vistok.metrics import frechet_distance


def floor_of(
    context: Context,
    reference: RealStats,
    count: int,
    training: TrainingSet | str | None,
    network: Any = None,
    ddof: int = 1,
    drawn: bool = True,
) -> Floor | None:
    """The distance of `count` real images (or clips) to a reference that they are not in; None
    where the data have none. Every rank calls.

    Args:
        training: the data's training images, or why there are none.
        network: of clips; None: the context's feature network.
        ddof: of the covariances.
        drawn: False for the distance of reconstructions, which a file that does not say its images
            is taken to be made of.
    """
    views = context.views
    network = context.features if network is None else network
    known = training.identity if isinstance(training, TrainingSet) else None
    key = ("floor", id(reference.stats), reference.reference.manifest, count, digest(known))
    key += (network.name, network.preprocess, ddof, drawn)
    if key not in views.memo:
        real = _others(context, reference, count, training, network, drawn)
        floor = None
        if real is not None:
            with warnings.catch_warnings():  # the row's `few` says it
                warnings.simplefilter("ignore")
                value = frechet_distance(real.stats, reference.stats, ddof)
            floor = Floor(value=value, count=real.stats.count, reference=real.reference)
        views.memo[key] = (floor, reference.stats)  # which is kept, so that its id stays its own
    return views.memo[key][0]


def _others(
    context: Context,
    reference: RealStats,
    count: int,
    training: TrainingSet | str | None,
    network: Any,
    drawn: bool,
) -> RealStats | None:
    """Statistics of `count` real images that are not in the reference, or of all there are."""
    views, there = context.views, reference.reference
    # Of networks that have no Fréchet distance no floor is measured.
    beside = [one for one in views.networks if "fid" in one.measures]
    if there.manifest != views.reference.manifest and (drawn or there.split != UNKNOWN):
        if count >= len(views):
            return views.real(network)
        dataset = Picked(views.dataset, count, len(views))
        return TrainingSet(dataset, dataset.record()).stats(context, network, beside)
    if not isinstance(training, TrainingSet):
        return None
    whole = training.dataset
    whole = whole.inner if isinstance(whole, Picked) else whole
    dataset = Picked(whole, count) if count < len(whole) else whole
    return TrainingSet(dataset, dataset.record()).stats(context, network, beside)
