"""All measures of a set of decoded images as a whole, against the real images of a context.

FID, sFID, KID, Inception Score, precision, recall, density, coverage: of one look at each image.
Sums are kept for the first two and the score. The others need the feature vectors themselves; of a
set larger than `stored` a keyed subset of that size is taken on both sides, and the rows say so.
The real side is looked at once for each network and kept with the context's images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor

from vistok import metrics as library
from vistok.core.errors import InputError
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import bar, frame_numbers, network_of
from vistok.eval.intervals import error_of_drawn, error_of_images, sample_of
from vistok.eval.reference.real import RealStats
from vistok.eval.results.rows import Floor, Row
from vistok.frozen import FeatureNetwork, Features
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats, FeatureStore, kid, prdc
from vistok.metrics.kernel import SIZE
from vistok.metrics.stored import CAP, chosen

MANIFOLD = ("precision", "recall", "density", "coverage")
METRICS = ("fid", "sfid", "kid", "is", *MANIFOLD)
MS_SSIM = "ms-ssim"  # of each image, so no measure of the set; asked for in the same way
_NEIGHBOURS, _BALLS = 3, 5


def wanted(names: Sequence[str] | str) -> tuple[str, ...]:
    """The metrics asked for, each once; `all` stands for each. ValueError for an unknown name."""
    names = (names,) if isinstance(names, str) else tuple(names)
    every = (*METRICS, MS_SSIM)
    for name in names:
        if name not in (*every, "all"):
            raise InputError(f"unknown metric '{name}'; valid: all, {', '.join(every)}")
    return every if "all" in names else tuple(dict.fromkeys(names))


MetricNames = Annotated[
    tuple[str, ...], BeforeValidator(wanted, json_schema_input_type=str | tuple[str, ...])
]


class _Gathered:
    """Sums and vectors of one side, real or decoded, so far, on this rank."""

    def __init__(
        self,
        network: FeatureNetwork,
        metrics: tuple[str, ...],
        count: int,
        stored: int,
        device: torch.device,
    ) -> None:
        subset = chosen(count, stored)
        self.members = None if subset is None else torch.from_numpy(subset)
        self.pool = FeatureStats(network.dim, device)
        self.spatial = self.store = None
        if "sfid" in metrics and network.spatial_dim:
            self.spatial = FeatureStats(network.spatial_dim, device)
        if {"kid", *MANIFOLD} & set(metrics):
            self.store = FeatureStore(network.dim, stored)

    @property
    def states(self) -> dict[str, Any]:
        return {"pool": self.pool, "spatial": self.spatial, "store": self.store}

    def update(self, seen: Features, index: Tensor) -> None:
        self.pool.update(seen.pool)
        if self.spatial is not None:
            self.spatial.update(seen.spatial)
        if self.store is not None:
            vectors = seen.pool.cpu()
            rows = slice(None) if self.members is None else torch.isin(index, self.members)
            self.store.update(vectors[rows], index[rows])

    def whole(self) -> Side:
        """Over all ranks; every rank calls."""
        return Side(
            self.pool.reduce(),
            None if self.spatial is None else self.spatial.reduce(),
            None if self.store is None else self.store.gathered(),
        )


@dataclass(frozen=True)
class Side:
    """A whole side."""

    pool: FeatureStats
    spatial: FeatureStats | None
    vectors: Tensor | None  # [n, D]


class SetMeasures:
    """`update(decoded, index)` on every batch, then `rows()` on every rank.

    Args:
        count: images of the decoded set, over all ranks; their numbers are 0..count-1.
        metrics: names of METRICS.
        frechet: the name of the FID's row ("rFID", "gFID"); the other names say what they are.
        stored: feature vectors that are kept of each side at most.
    """

    def __init__(
        self,
        context: Context,
        count: int,
        metrics: Sequence[str] = ("fid",),
        frechet: str = "rFID",
        stored: int = CAP,
    ) -> None:
        self.context, self.count, self.frechet, self.stored = context, count, frechet, stored
        self.metrics, network = tuple(metrics), context.features
        self.decoded = _Gathered(network, self.metrics, count, stored, context.device)
        frames_each = context.sides[0] if len(context.sides) == 3 else 1
        self.sample = sample_of(context, network.dim, count // frames_each)
        self.score = None
        if "is" in self.metrics and network.classes and count >= 10:
            self.score = library.InceptionScore(network.classes, count).to(context.device)

    def update(self, decoded: Tensor, index: Tensor) -> None:
        """decoded [B, 3, *sides] uint8, their numbers in the set [B]; clips count by frames."""
        index = frame_numbers(index, decoded)
        seen = self.context.features.features(frames(decoded))
        self.decoded.update(seen, index)
        self.sample.update(seen.pool, index)
        if self.score is not None:
            self.score.update(seen.logits, index)

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        return {"decoded": self.decoded, "score": self.score, "sample": self.sample}

    def rows(
        self, reference: RealStats | None = None, floor: Floor | None = None, **rest: Any
    ) -> list[Row]:
        """One row for each metric, in METRICS' order; context.skip says what cannot be measured.

        reference: other real images that the FID is taken to. floor: of the FID.
        """
        context, network = self.context, self.context.features
        mine, real, rows = self.decoded.whole(), real_side(context, self.metrics, self.stored), []
        common = {"features": network_of(network), "count": mine.pool.count, **rest}
        if "fid" in self.metrics:
            error = self._error(mine.pool, reference)
            rest_of = {"error": error, "floor": floor, **rest}
            rows.append(context.frechet_row(self.frechet, mine.pool, reference, **rest_of))
        if "sfid" in self.metrics:
            if mine.spatial is None:
                self._skip("sFID", f"{network.name} gives no spatial features")
            else:
                rows.append(context.frechet_row("sFID", mine.spatial, against=real.spatial, **rest))
        if "kid" in self.metrics:
            rows += self._kid(mine, real, common)
        if "is" in self.metrics:
            if self.score is None:
                why = "no logits" if not network.classes else "fewer than 10 images"
                self._skip("IS", f"{network.name}: {why}")
            else:
                score = self.score.compute()
                note = f"mean over {score.splits} splits, their spread is {score.std:.4g}"
                rows.append(context.row("IS", score.mean, **_noted(common, note)))
        if set(MANIFOLD) & set(self.metrics):
            rows += self._manifold(mine, real, common)
        return rows

    def _error(self, mine: FeatureStats, reference: RealStats | None) -> float:
        """Standard error of the FID: of reconstructions beside their own images, or of images
        that were drawn beside a reference that was not."""
        if reference is not None:
            return error_of_drawn(self.sample, mine, reference.stats)
        network = self.context.features
        real = self.context.views.stats(network)
        return error_of_images(self.context, network, self.sample, mine, real)

    def _kid(self, mine: Side, real: Side, common: dict[str, Any]) -> list[Row]:
        x, y = mine.vectors, real.vectors
        size = min(SIZE, len(x), len(y))
        if size < 2:
            self._skip("KID", "fewer than 2 images")
            return []
        found = kid(x, y, size=size)
        note = f"mean over {found.subsets} subsets of {size}, their spread is {found.std:.4g}"
        if size < SIZE:
            note += f"; subsets of {SIZE} are usual, the set has fewer images"
        common = {**common, "count": len(x), "setting": {"stored": self.stored}}
        return [self.context.row("KID", found.mean, **_noted(common, note, self._kept(x)))]

    def _manifold(self, mine: Side, real: Side, common: dict[str, Any]) -> list[Row]:
        x, y, device = mine.vectors, real.vectors, self.context.device
        if min(len(x), len(y)) <= _BALLS:
            self._skip("precision and recall", f"{_BALLS} neighbours need more images")
            return []
        with bar(2 * (len(x) + len(y)), "neighbours", "row") as progress:
            found = prdc(x.to(device), y.to(device), _NEIGHBOURS, _BALLS, progress.update)
        rows = []
        for name in MANIFOLD:
            if name in self.metrics:
                k = _NEIGHBOURS if name in ("precision", "recall") else _BALLS
                note = f"k = {k}, {len(x)} decoded and {len(y)} real images"
                kept = {**common, "count": len(x), "setting": {"stored": self.stored}}
                kept = _noted(kept, note, self._kept(x))
                rows.append(self.context.row(name, getattr(found, name), **kept))
        return rows

    def _kept(self, vectors: Tensor) -> str:
        if len(vectors) == self.count:
            return ""
        return f"a keyed subset (seed 0) of {len(vectors)} of {self.count} images"

    def _skip(self, metric: str, reason: str) -> None:
        if not any(one["protocol"] == metric for one in self.context.skipped):
            self.context.skip(metric, reason)


def real_side(context: Context, metrics: tuple[str, ...], stored: int = CAP) -> Side | None:
    """The context's real images, looked at once for each network and kind of measures.

    None where the plain statistics that the context has anyway are enough.
    """
    network, views = context.features, context.views
    kinds = ("sfid" in metrics, bool({"kid", *MANIFOLD} & set(metrics)))
    key = ("sides", network.name, network.sha256, network.preprocess, kinds, stored)
    if not any(kinds):
        return None
    if key not in views.memo:
        mine = _Gathered(network, metrics, views.frames, stored, context.device)
        for batch in views.batches("real features"):
            index = frame_numbers(batch.index, batch.pixels)
            mine.update(network.features(to_uint8(frames(batch.pixels))), index)
        views.memo[key] = mine.whole()
        views.remember(network, views.memo[key].pool)
    return views.memo[key]


def _noted(fields: dict[str, Any], *notes: str) -> dict[str, Any]:
    said = [note for note in (fields.get("note", ""), *notes) if note]
    return {**fields, "note": "; ".join(said)}
