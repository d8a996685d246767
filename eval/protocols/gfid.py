"""gFID: Fréchet distance of sampled and decoded images to real ones.

`gFID` is taken to statistics of the training images, as papers do it; `gFID-val` to the very
images that rFID uses, from the same samples. Each is measured without guidance first, then with
it: a generator's own settings if they guide, else a moderate scale. Each is the mean over several
sampling seeds.
Generators are runs that were named, or the AR probe (`gfid.probe`, eval/systems/probe.py), by which
gFID becomes a property of the tokenizer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from vistok.core.errors import InputError
from vistok.eval.context import Context
from vistok.eval.floors import floor_of
from vistok.eval.intervals import error_of_drawn
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, Skip, register
from vistok.eval.protocols.generated import (
    GIVEN,
    Pass,
    common_fields,
    passes,
    prepared,
    sample_into,
    scales_of,
    title_of,
)
from vistok.eval.reference.cmmd import cmmd_row
from vistok.eval.reference.real import RealStats
from vistok.eval.reference.sets import MS_SSIM, MetricNames, NetworkMeasures, SetMeasures
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.rows import Row
from vistok.eval.systems.probe import no_probe
from vistok.eval.systems.runs import System
from vistok.metrics.stored import CAP

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

MOST = 50_000  # samples, unless told otherwise: as many as published gFIDs have


def one_scale(value: Any) -> Any:
    """A single guidance scale stands for a list of one."""
    return (value,) if isinstance(value, int | float) else value


def not_negative(value: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Guidance scales as they are; InputError for one below 0."""
    if any(scale < 0 for scale in value or ()):
        raise InputError("expected scales of 0 or more")
    return value


class GFIDConfig(ProtocolConfig):
    guidance: Selects[tuple[float, ...] | None] = None
    """Guidance scales; 1.0 is always measured. null: the generator's own settings (of a release,
    those of its paper); 1.5 for one that does not guide by itself."""
    labels: Selects[Literal["equal", "random"]] = "equal"
    """Classes of the samples. equal: each in turn, as often as the others; random: uniformly, as
    LlamaGen's evaluation has them."""
    resize: Selects[int | None] = Field(default=None, ge=1)
    """Pixels of a side to which samples are resized (bicubic, not antialiased) before anything
    looks at them: LlamaGen's models of 384 pixels are measured at 256. null = as they are."""
    samples: Selects[int | None] = Field(default=None, ge=2)
    """Generated images; null = as many as there are real ones, at most 50,000."""
    train_images: Selects[int | None] = Field(default=None, ge=2)
    """Training images behind the statistics; null = `limit`, else 50,000."""
    seeds: Selects[int] = Field(default=3, ge=1, le=100)
    """Sampling seeds (`seed`, `seed` + 1, ...): the number is the mean over them, with its range;
    1 = one set of samples, in a third of the time. Baselines always have one."""
    probe: Selects[str | None] = None
    """AR probe to train (once) on the tokenizer's tokens: tiny, s, b or a YAML file."""
    metrics: Selects[MetricNames] = ("fid",)
    """Further measures of the samples: sfid, kid, is, precision, recall, density, coverage; all."""
    stored: Selects[int] = Field(default=CAP, ge=2)
    """Feature vectors kept for KID, precision and recall; a keyed subset of a larger set."""

    _one_scale = field_validator(
        "guidance", mode="before", json_schema_input_type=float | tuple[float, ...] | None
    )(one_scale)
    _not_negative = field_validator("guidance")(not_negative)


@register
class GFID(Protocol):
    """Generation: Fréchet distance of samples (of clips: of their frames) to training and to
    validation images."""

    name = "gfid"
    media = ("image", "video")
    every_network = True
    Config = GFIDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job | Skip]:
        """One for each pass of each generator; a skip for whatever is missing."""
        own = config.gfid
        if not system.generators:
            return [Skip("gFID", missing(system, config))]
        real: TrainingSet | str = GIVEN
        if config.reference is None:
            limit = own.train_images or config.limit
            real = training_set(system.tokenizer, config.data, limit)
        training = real if isinstance(real, str) else real.identity
        further = tuple(one for one in own.metrics if one not in ("fid", MS_SSIM))
        found: list[Job | Skip] = []
        for generator in system.generators:
            scales = scales_of(generator.generator, own.guidance)
            for one in passes(system.tokenizer.spec, scales):
                given = {"samples": own.samples, "training": training}
                given |= {"labels": own.labels, "resize": own.resize}
                if one.trained and one.length == system.tokenizer.spec.max_prefix and further:
                    given |= {"metrics": further, "stored": own.stored}
                job = Job(self, one.model_copy(update=given), generator, real)
                found += of_seeds(job, config.seed, own.seeds if one.trained else 1)
            if len(scales) == 1 and own.guidance != (1.0,):
                found.append(Skip("gFID with guidance", _unguidable(generator)))
            if isinstance(real, str) and config.reference is None:
                found.append(Skip("gFID", real))
        return found

    def run(self, context: Context, config: Pass) -> list[Row]:
        """gFID (if there are training images), gFID-val, and further measures of the set against
        the validation images."""
        generator = context.job.generator
        if not (config.trained or context.each("fid")):
            return []  # baselines have Fréchet distances alone
        made = prepared(context, config, "gFID")
        if made is None:
            return []
        model, note = made
        samples = config.samples or min(MOST, len(context.views))
        measures = SetMeasures(
            context,
            samples * (context.views.frames // len(context.views)),
            config.metrics,
            context.per_frame("gFID-val"),
            config.stored,
        )
        sample_into(measures, context, model, config, samples, title_of(generator, config))
        rows, common = [], common_fields(context, config)
        for part in measures.parts:
            if "fid" in part.network.measures:
                stats = part.decoded.pool.reduce()
                rows += self._distances(part, stats, samples, config, note, common)
            if "cmmd" in part.network.measures and config.trained:
                rows += self._kernel_distances(
                    part.context, part.decoded.pool.reduce(), note, common
                )
        seen = "frames of the clips" if context.unit == "clip" else "images"
        against = f"reference: the {context.views.reference.split} {seen}"
        return rows + measures.rows(note=f"{note}; {against}", **common)

    def _kernel_distances(
        self, context: Context, stats: Any, note: str, common: dict[str, Any]
    ) -> list[Row]:
        """CMMD of the samples and the training images (if there are any), and the validation ones;
        a reference file of Fréchet statistics is of other networks."""
        real = context.job.data
        sides = {} if isinstance(real, str) else {"gFID": real.stats(context)}
        rows = []
        for name, side in {**sides, "gFID-val": None}.items():
            reference = context.views.reference if side is None else side.reference
            said = f"{note}; reference: {reference.split} ({reference.described})"
            rows.append(cmmd_row(context, stats, name, side, note=said, **common))
        return rows

    def _distances(
        self,
        part: NetworkMeasures,
        stats: Any,
        samples: int,
        config: Pass,
        note: str,
        common: dict[str, Any],
    ) -> list[Row]:
        """Fréchet distances of what one network saw of the samples."""
        context, sample = part.context, part.sample
        real, given = context.job.data, context.reference  # given instead of the training images
        sides: dict[str, RealStats | None] = {}
        if given is not None or not isinstance(real, str):
            sides["gFID"] = real.stats(context) if given is None else given
        if config.trained or not sides:
            sides["gFID-val"] = None
        rows = []
        seen = "frames of the clips" if context.unit == "clip" else "images"
        for metric, side in sides.items():
            against = f"reference: the {context.views.reference.split} {seen}"
            if side is None:
                against += ", not training statistics"
            else:
                described = side.reference.described
                against = f"reference: {side.reference.split} {seen} ({described})"
            name = context.per_frame(metric if config.trained else "gFID-untrained")
            said = f"{note}; {against}"
            real_stats = context.views.stats(context.features) if side is None else side.stats
            own = {"error": error_of_drawn(sample, stats, real_stats)}
            if config.trained:
                reference = context.views.real(context.features) if side is None else side
                own["floor"] = floor_of(context, reference, samples, real)
            rows.append(context.frechet_row(name, stats, side, note=said, **own, **common))
        return rows


def of_seeds(job: Job, first: int, count: int) -> list[Job]:
    """The job with each of `count` seeds from the evaluation's own, `first`, on; the cache has one
    outcome for each, the same as of an evaluation with that seed."""
    return [job, *(replace(job, seed=first + more) for more in range(1, count))]


def _unguidable(generator: Any) -> str:
    """Why this generator is measured without guidance alone."""
    if generator.generator.num_classes and not generator.generator.config.condition.null_class:
        return f"{generator.name} knows no sample without a class, which guidance needs"
    return f"{generator.name} has no classes and reads no text: there is nothing to guide with"


def missing(system: System, config: EvalConfig) -> str:
    """Why there is no generator."""
    if config.gfid.probe is not None:
        reason = no_probe(system.tokenizer, config)
        if reason is not None:
            return reason
    return "no generator of this tokenizer's tokens among the runs (gfid.probe=tiny trains one)"
