"""The training images as the real side of gFID: center crops, not mirrored, a recorded choice.

Published gFIDs compare samples with statistics of the training set. Where that is larger than the
limit, a keyed choice of it stands for it, and the reference's manifest says so. Data whose training
split consists of random views (photos) give views: the reference's description says that too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vistok.config.registry import build
from vistok.core.rng import Rng
from vistok.data import DataError, Dataset, Sample
from vistok.data.base import manifest_hash
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.reference.real import RealStats
from vistok.eval.systems.runs import Run, data_config, misfit

LIMIT = 50_000  # images behind training statistics, unless told otherwise


class Picked(Dataset):
    """Some samples of a data set (of its first `limit` ones): a choice keyed by their number alone,
    in the set's order."""

    def __init__(self, inner: Dataset, count: int, limit: int | None = None) -> None:
        self.inner, self.classes, self.size = inner, inner.classes, inner.size
        self.frames = getattr(inner, "frames", None)
        self.first = len(inner) if limit is None else min(limit, len(inner))
        chosen = Rng(0, "training pictures").generator().permutation(self.first)[:count]
        self.rows = np.sort(chosen)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        return replace(self.inner.sample(int(self.rows[index]), epoch, seed), index=index)

    def record(self) -> dict[str, Any]:
        whole = self.inner.record()
        among = "" if self.first == len(self.inner) else f"the first {self.first} of "
        how = f"{len(self)} of {among}{len(self.inner)}, keyed permutation of seed 0"
        return {
            **whole,
            "count": len(self),
            "picked": how,
            "manifest": manifest_hash([str(whole["manifest"]), f"picked {how}"]),
        }


@dataclass(frozen=True)
class TrainingSet:
    """Training images of a run's data. Statistics of one set are computed once for all runs."""

    dataset: Dataset
    record: dict[str, Any] = field(repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        """Record of which images these are, wherever they lie: JSON."""
        return {key: value for key, value in self.record.items() if key != "source"}

    def stats(
        self,
        context: Context,
        network: Any = None,
        beside: Sequence[Any] | None = None,
    ) -> RealStats:
        """Statistics under the context's feature network, or under a `network` of clips, over all
        ranks (every rank must ask). `beside`: networks that look too where the images must be
        looked at; None: all of the evaluation."""
        views = context.views
        own = Views(
            *(self.dataset, views.batch, None, views.device, views.workers, views.cache),
            networks=views.networks if beside is None else tuple(beside),
        )
        known = ("training", json.dumps(self.record, sort_keys=True, default=str))
        own = views.memo.setdefault(known, own)  # runs on the same images share them
        described = f"{own.reference.described}; {self.record.get('picked', 'all of it')}"
        found = own.real(context.features if network is None else network)
        reference = found.reference.model_copy(update={"described": described})
        return replace(found, reference=reference)


def training_set(
    run: Run, changes: Mapping[str, Any] | None, limit: int | None
) -> TrainingSet | str:
    """The training images of a run's data, or why there are none."""
    try:
        dataset = build(data_config(run, changes)).open("train", augment=False)
    except DataError as error:
        return f"no training images: {error}"
    wrong = misfit(run, dataset)
    if wrong:
        return f"no training images that fit: the split has {wrong}"
    limit = LIMIT if limit is None else limit
    if limit < len(dataset):
        dataset = Picked(dataset, limit)
    return TrainingSet(dataset, dataset.record())
