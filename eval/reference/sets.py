"""All measures of a set of decoded images as a whole, against the real images of a context.

FID, sFID, KID, Inception Score, precision, recall, density, coverage: of one look at each image
through each feature network. Sums are kept for the first two and the score. The others need the
feature vectors themselves; of a set larger than `stored` a keyed subset of that size is taken on
both sides, and the rows say so. The real side is looked at once by all networks together and kept
with the context's images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vistok.eval.reference.cmmd import cmmd_row
from vistok.eval.results.rows import Floor, Row
from vistok.frozen import FeatureNetwork, Features
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats, FeatureStore, kid, prdc
from vistok.metrics.kernel import SIZE
from vistok.metrics.stored import CAP, chosen

MANIFOLD = ("precision", "recall", "density", "coverage")
METRICS = ("fid", "sfid", "kid", "is", *MANIFOLD)
_DEFINED = {"kid": "kid"} | dict.fromkeys(MANIFOLD, "prdc")
"""Metric -> the kind of measures that a network's features must be made for; others take "fid"."""
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
    """`update(decoded, index)` on every batch, then `rows()` on every rank. All feature networks
    of the context look at the same decoded images; `parts` has what each has seen.

    Args:
        count: images of the decoded set, over all ranks; their numbers are 0..count-1.
        metrics: names of METRICS; a network that does not define one has no row of it.
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
        self.context, self.stored = context, stored
        self.parts = tuple(
            NetworkMeasures(one, count, metrics, frechet, stored) for one in context.each()
        )

    def update(self, decoded: Tensor, index: Tensor) -> dict[str, Features]:
        """decoded [B, 3, *sides] uint8, their numbers in the set [B]; clips count by frames. Gives
        {network: what it has seen}."""
        index, decoded = frame_numbers(index, decoded), frames(decoded)
        return {part.network.name: part.update(decoded, index) for part in self.parts}

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes, by network."""
        return {part.network.name: part for part in self.parts}

    def look(self) -> None:
        """Look at the real images, where that was not done before."""
        real_sides(
            self.context, {part.network.name: part.metrics for part in self.parts}, self.stored
        )

    def rows(self, floors: Mapping[str, Floor | None] | None = None, **rest: Any) -> list[Row]:
        """One row for each network and metric, in METRICS' order; context.skip says what cannot be
        measured. FID is taken to the file that the protocol was told to compare with, if any."""
        self.look()
        under = lambda part: (floors or {}).get(part.network.name)
        return [row for part in self.parts for row in part.rows(under(part), **rest)]


class NetworkMeasures:
    """The measures of one decoded set through one network, the only one of `context`; arguments as
    of `SetMeasures`."""

    def __init__(
        self, context: Context, count: int, metrics: Sequence[str], frechet: str, stored: int
    ) -> None:
        self.context, self.count, self.frechet, self.stored = context, count, frechet, stored
        self.network = network = context.features
        defined = lambda name: _DEFINED.get(name, "fid") in network.measures
        self.metrics = tuple(filter(defined, metrics))
        self.decoded = _Gathered(network, self.metrics, count, stored, context.device)
        frames_each = context.sides[0] if len(context.sides) == 3 else 1
        self.sample = sample_of(context, network.dim, count // frames_each)
        self.score = None
        if "is" in self.metrics and network.classes and count >= 10:
            self.score = library.InceptionScore(network.classes, count).to(context.device)

    def update(self, decoded: Tensor, index: Tensor) -> Features:
        """decoded [B, 3, H, W] uint8: single images, and their numbers [B]."""
        seen = self.network.features(decoded)
        self.decoded.update(seen, index)
        self.sample.update(seen.pool, index)
        if self.score is not None:
            self.score.update(seen.logits, index)
        return seen

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        return {"decoded": self.decoded, "score": self.score, "sample": self.sample}

    def rows(self, floor: Floor | None = None, **rest: Any) -> list[Row]:
        """One row for each metric; see `SetMeasures.rows`. `floor`: of the FID."""
        context, network, rows = self.context, self.network, []
        mine = self.decoded.whole()
        real = real_side(context, self.metrics, self.stored)
        common = {"features": network_of(network), "count": mine.pool.count, **rest}
        if "fid" in self.metrics:
            own = {"error": self._error(mine.pool), "floor": floor, **rest}
            rows.append(context.frechet_row(self.frechet, mine.pool, context.reference, **own))
        if "sfid" in self.metrics:
            if mine.spatial is None:
                self._skip("sFID", f"{network.name} gives no spatial features")
            else:
                rows.append(context.frechet_row("sFID", mine.spatial, against=real.spatial, **rest))
        if "cmmd" in network.measures and self.frechet.startswith("rFID"):
            rows.append(cmmd_row(context, mine.pool, self.frechet, **rest))
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

    def _error(self, mine: FeatureStats) -> float:
        """Standard error of the FID: of reconstructions beside their own images, or of images
        that were drawn beside a reference that was not."""
        context, network = self.context, self.network
        if context.reference is not None:
            return error_of_drawn(self.sample, mine, context.reference.stats)
        real = context.views.stats(network)
        return error_of_images(context, network, self.sample, mine, real)

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
        known = {(s["protocol"], s["reason"], s.get("network")) for s in self.context.skipped}
        if (metric, reason, self.network.name) not in known:
            self.context.skip(metric, reason, network=self.network.name)


def real_side(context: Context, metrics: tuple[str, ...], stored: int = CAP) -> Side | None:
    """What the context's (only) network sees of its real images; None where the plain statistics
    that the context has anyway are enough."""
    return real_sides(context, {context.features.name: metrics}, stored)[context.features.name]


def real_sides(
    context: Context, metrics: Mapping[str, tuple[str, ...]], stored: int = CAP
) -> dict[str, Side | None]:
    """{network: what it sees of the context's real images}, kept for each network and kind of
    measures; one pass over the images serves all networks that have not looked yet."""
    views, wanted = context.views, {one.name: one for one in context.networks}
    needs = {name: kinds_of(own) for name, own in metrics.items() if any(kinds_of(own))}
    keys = {name: _side_key(wanted[name], needs[name], stored) for name in needs}
    new = [name for name, key in keys.items() if key not in views.memo]
    if new:
        mine = {
            name: _Gathered(wanted[name], metrics[name], views.frames, stored, context.device)
            for name in new
        }
        for batch in views.batches("real features"):
            index = frame_numbers(batch.index, batch.pixels)
            pixels = to_uint8(frames(batch.pixels))
            for name, one in mine.items():
                one.update(wanted[name].features(pixels), index)
        for name, one in mine.items():
            views.memo[keys[name]] = whole = one.whole()
            views.remember(wanted[name], whole.pool)
    return {name: views.memo[keys[name]] if name in keys else None for name in metrics}


def kinds_of(metrics: Sequence[str]) -> tuple[bool, bool]:
    """(spatial features, vectors): what measures need beside the plain statistics."""
    return ("sfid" in metrics, bool({"kid", *MANIFOLD} & set(metrics)))


def _side_key(network: FeatureNetwork, kinds: tuple[bool, bool], stored: int) -> tuple:
    return ("sides", network.name, network.sha256, network.preprocess, kinds, stored)


def _noted(fields: dict[str, Any], *notes: str) -> dict[str, Any]:
    said = [note for note in (fields.get("note", ""), *notes) if note]
    return {**fields, "note": "; ".join(said)}
