"""Reconstruction at every evaluated prefix length, and how the codebook is used.

Images are rounded to 8 bits before any metric sees them, as a file would hold them. Clips are
measured frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from vistok import metrics as library
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.floors import floor_of
from vistok.eval.intervals import of_mean
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, Skip, register
from vistok.eval.protocols.common import distance_row
from vistok.eval.reference.filters import Asked, Filtered, filtered
from vistok.eval.reference.sets import MS_SSIM, MetricNames, SetMeasures
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.rows import Floor, Row
from vistok.eval.systems.runs import System
from vistok.frozen import FeatureNetwork, Features, PerceptualNetwork
from vistok.layers.frames import frames
from vistok.metrics.stored import CAP
from vistok.runtime.distributed import sum_
from vistok.tokens import Tokens

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig
    from vistok.metrics.codebook import CodebookUse

_CURVE = 512  # points of the sorted histogram that are kept for drawing
_UNIT = ("images", "frames")  # of clips every frame is an image


class RFIDConfig(ProtocolConfig):
    metrics: Selects[MetricNames] = ("fid",)
    """Measures of the whole set beside PSNR and the like: fid, sfid, kid, is, precision, recall,
    density, coverage, ms-ssim; or all."""
    stored: Selects[int] = Field(default=CAP, ge=2)
    """Feature vectors kept for KID, precision and recall; a keyed subset of a larger set."""
    filter: Selects[Asked | None] = None
    """Filter that resamples the images: bilinear, bicubic, or both, each with rows of its own name;
    null = that of the data (data.filter)."""
    floor: Selects[bool] = True
    """Measure the floor of rFID too: the distance of as many training images to the real ones."""


class _JobConfig(RFIDConfig):
    training: Selects[dict[str, Any] | str] = ""  # identity of the images behind the floor


class _FilteredConfig(_JobConfig):
    filter: str | None = None  # here a part of the rows' names
    before: Selects[str | None] = None  # filter that the images are first compared under


@dataclass(frozen=True)
class _Data:
    """What a job looks at beside its context's images."""

    images: Filtered | None = None  # under another filter, instead of these
    training: TrainingSet | str | None = None  # for the floor


class Real:
    """The real images of a batch, single ones, and what the perceptual networks see of them: all
    prefix lengths are compared with it."""

    def __init__(self, context: Context, pixels: Tensor) -> None:
        """pixels [B, 3, *sides] in 0..1."""
        pixels = frames(pixels)
        self.pixels = to_uint8(pixels)
        self.maps = {network.name: network.maps(pixels) for network in context.perceptuals}


def same_weights(
    network: PerceptualNetwork, features: Sequence[FeatureNetwork], seen: dict[str, Features]
) -> list[Tensor] | None:
    """Maps that a feature network of the same weights has made of the images anyway, if any."""
    for one in features:
        if (one.name, one.sha256) == (network.name, network.sha256):
            return seen[one.name].maps
    return None


class Measures:
    """All measures of one prefix length."""

    def __init__(
        self, context: Context, length: int, metrics: tuple[str, ...] = ("fid",), stored: int = CAP
    ) -> None:
        self.context, self.length, self.sides = context, length, context.sides
        sets = tuple(name for name in metrics if name != MS_SSIM)
        name = context.per_frame("rFID")
        self.sets = SetMeasures(context, context.views.frames, sets, name, stored)
        together = context.sides[0] if len(context.sides) == 3 else 1  # a clip is one sample
        self.psnr = library.PSNR(together).to(context.device)
        kinds = {
            "SSIM": library.SSIM,
            **({"MS-SSIM": library.MSSSIM} if MS_SSIM in metrics else {}),
        }
        self.similar = {
            name: kind(together).to(context.device)
            for name, kind in kinds.items()
            if min(self.sides[-2:]) >= kind.side
        }
        self.too_small = {n: kind.side for n, kind in kinds.items() if n not in self.similar}
        self.distances = [
            (one, library.MeanDistance(together).to(context.device)) for one in context.perceptuals
        ]
        self.bytes = torch.zeros((), dtype=torch.float64, device=context.device)

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        distances = [distance for _, distance in self.distances]
        parts = {"sets": self.sets, "psnr": self.psnr, "similar": self.similar}
        return {**parts, "distances": distances, "bytes": self.bytes}

    def update(
        self, tokens: Tokens, real: Real, index: Tensor, condition: Condition | None = None
    ) -> None:
        """Tokens of the prefix, the real images that they came from, their numbers [B], and the
        condition of their decoder."""
        decoded = to_uint8(self.context.decode(tokens, condition, index))
        seen = self.sets.update(decoded, index)
        decoded = frames(decoded)
        self.psnr.update(decoded, real.pixels)
        for similarity in self.similar.values():
            similarity.update(decoded, real.pixels)
        for network, distance in self.distances:
            maps = same_weights(network, self.context.networks, seen)
            maps = network.maps(decoded.float() / 255) if maps is None else maps
            distance.update(network.between(maps, real.maps[network.name]))
        if tokens.indices is not None:
            self.bytes += sum(map(len, tokens.to_bytes()))

    def rows(self, floors: Mapping[str, Floor | None]) -> list[Row]:
        """All rows; `floors`: of the rFID, by network."""
        context, spec, at = self.context, self.context.spec, {"length": self.length}
        clips = len(self.sides) == 3
        each = {**at, "count": context.views.frames}  # of clips every frame is an image
        said = f"{len(context.views):,} clips of {self.sides[0]} frames" if clips else ""
        noted = lambda *notes: "; ".join(filter(None, (*notes, said)))
        psnr = self.psnr.compute()
        rows = [
            *self.sets.rows(floors, **at),
            context.row(
                "PSNR",
                psnr.pooled,
                note=noted("of the squared error over all pixels"),
                **of_mean(context, psnr.pooled, psnr.pooled_error),
                **each,
            ),
            context.row(
                "PSNR-mean",
                psnr.mean,
                note=noted(f"mean over {_UNIT[clips]}"),
                **of_mean(context, psnr.mean, psnr.mean_error),
                **each,
            ),
        ]
        each["note"] = noted()
        for name, one in self.similar.items():
            value = one.compute()
            rows.append(context.row(name, value, **of_mean(context, value, one.mean_error), **each))
        for network, distance in self.distances:
            value = distance.compute()
            spread = of_mean(context, value, distance.mean_error)
            rows.append(distance_row(context, network, value, **spread, **each))
        if spec.vocab:
            bits = spec.positions_in(self.length) * sum(spec.factor_bits)
            total = float(sum_(self.bytes)) / len(context.views)
            unit = context.unit
            rows.append(context.row(f"bits/{unit}", bits, note="codes alone", **at))
            rows.append(context.row("bits/pixel", bits / math.prod(self.sides), **at))
            rows.append(context.row(f"bytes/{unit}", total, note="packed, with the header", **at))
        return rows


@register
class RFID(Protocol):
    """Reconstruction at every prefix length (rFID, PSNR, SSIM, perceptual, bytes), codebook use."""

    name = "rfid"
    media = ("image", "video")
    every_network = True
    Config = RFIDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job | Skip]:
        """One, or one for each filter that is asked for; with the training images of the floor."""
        own = config.rfid
        if own.filter is None:
            return [self._job(system, config, own)]
        if config.reference_rfid:
            raise InputError(
                f"rfid.filter={own.filter}: reference_rfid=true compares with a file of one "
                "filter; set data.filter instead"
            )
        found, missing = filtered(system.tokenizer, config.data, own.filter)
        jobs = []
        for one in found:
            before = found[0].filter if one.before is not None else None
            given = own.model_dump() | {"filter": one.filter, "before": before}
            jobs.append(self._job(system, config, _FilteredConfig(**given), one))
        jobs = jobs or [self._job(system, config, own.model_copy(update={"filter": None}))]
        why: dict[str, list[str]] = {}
        for name, reason in missing.items():
            why.setdefault(reason, []).append(name)
        return jobs + [Skip(f"rFID filter={'/'.join(n)}", reason) for reason, n in why.items()]

    def _job(
        self, system: System, config: EvalConfig, own: RFIDConfig, images: Filtered | None = None
    ) -> Job:
        """A job on the tokenizer's images, or on those under a filter."""
        if not own.floor:
            return Job(self, own, data=None if images is None else _Data(images))
        changes = config.data if images is None else {**config.data, "filter": images.filter}
        real = training_set(system.tokenizer, changes, None)
        identity = real if isinstance(real, str) else real.identity
        kind = _JobConfig if images is None else _FilteredConfig
        return Job(
            self, kind(**own.model_dump() | {"training": identity}), data=_Data(images, real)
        )

    def run(self, context: Context, config: RFIDConfig) -> list[Row]:
        """Rows of all measures at each length; codebook use at full length."""
        first, data = True, context.job.data or _Data()
        if data.images is not None:
            images, first = data.images, data.images.before is None
            if not images.resampled(context):
                sides = "x".join(map(str, context.sides[-2:]))
                context.skip(
                    f"rFID filter={images.filter}",
                    f"no image is resampled: all are stored at {sides}, so it is that of the other "
                    "filter",
                )
                return []
            context = replace(context, views=images.views(context))
        spec = context.spec
        lengths = {
            length: Measures(context, length, config.metrics, config.stored)
            for length in spec.eval_lengths
        }
        floor = library.MeanColorPSNR().to(context.device)
        codes = library.CodebookStats(spec).to(context.device) if spec.vocab else None
        for batch in context.batches(f"{context.run.name}: reconstruct", [lengths, floor, codes]):
            condition = context.condition(batch)
            tokens = context.encode(batch, condition)
            real = Real(context, batch.pixels)
            floor.update(real.pixels)
            if codes is not None:
                codes.update(tokens.indices)
            for length, measures in lengths.items():
                cut = tokens if length == spec.max_prefix else tokens.prefix(length)
                measures.update(cut, real, batch.index, condition)
        next(iter(lengths.values())).sets.look()  # so that no floor looks at them for less
        floors = {}
        if config.floor and "fid" in config.metrics:
            for one in context.each("fid"):
                reference = one.reference or one.views.real(one.features)
                under = floor_of(one, reference, len(one.views), data.training, drawn=False)
                floors[one.features.name] = under
        rows = [row for measures in lengths.values() for row in measures.rows(floors)]
        for name, side in next(iter(lengths.values())).too_small.items():
            context.skip(name, f"its 11x11 window needs images with sides of {side} pixels or more")
        one = "frame" if context.unit == "clip" else "image"
        note = f"each {one}'s own mean color: what 0 tokens of detail give"
        count = context.views.frames
        value = floor.compute().pooled
        rows.append(context.row("PSNR-mean-color", value, length=None, note=note, count=count))
        if codes is None:
            context.skip("codebook", "continuous tokens have no codebook, bits or bytes")
            return rows
        use = codes.compute()
        if first:  # the report draws one
            context.facts["codebook"] = codebook_facts(use)
        return rows + codebook_rows(context, use)


def codebook_rows(context: Context, use: CodebookUse) -> list[Row]:
    parts = " x ".join(map(str, context.spec.vocab))
    note = f"{use.positions} tokens, vocabulary {parts}"
    values = {"usage": use.usage, "perplexity": use.perplexity, "entropy": use.entropy}
    if use.usage is None:  # too large to count jointly: the mean of the factors, under its own name
        mean = lambda numbers: sum(numbers) / len(numbers)
        values = {
            "factor-usage": mean(use.factor_usage),
            "factor-perplexity": mean(use.factor_perplexity),
            "factor-entropy": mean(use.factor_entropy),
        }
        note += "; too many codes to count jointly, mean over factors"
    codes = max(context.spec.vocab) if use.usage is None else context.spec.codebook_size
    few = f"{use.positions:,} tokens for {codes:,} codes" if use.positions < codes else ""
    rows = [
        context.row(f"codebook-{name}", value, note=note, few=few) for name, value in values.items()
    ]
    return [*rows, context.row("slot-redundancy", use.redundancy, note=note)]


def codebook_facts(use: CodebookUse) -> dict[str, Any]:
    """The sorted histogram (thinned to some points) and the entropies per position."""
    counts = use.counts if use.counts is not None else torch.cat(use.factor_counts)
    codes = len(counts) if use.counts is not None else sum(use.sizes)
    ordered = counts.sort(descending=True).values.tolist()
    step = max(1, len(ordered) // _CURVE)
    kept = sorted({*range(0, len(ordered), step), len(ordered) - 1})
    curve = [[rank, ordered[rank]] for rank in kept]
    if codes > len(ordered):  # of a large factor only codes that occur are listed
        curve += [[rank, 0] for rank in sorted({len(ordered), codes - 1})]
    entropy = use.position_entropy
    return {
        "codes": codes,
        "joint": use.usage is not None,
        "used": int((counts > 0).sum()),
        "tokens": use.positions,
        "sorted_counts": curve,
        "position_entropy": None if entropy is None else entropy.tolist(),
        "factor_usage": list(use.factor_usage),
        "factor_entropy": list(use.factor_entropy),
    }
