"""gFID: Fréchet distance of sampled and decoded images to real ones.

`gFID` is taken to statistics of the training images, as papers do it; `gFID-val` to the very
images that rFID uses, from the same samples. Each is measured without guidance first, then with
it: a generator's own settings if they guide, else a moderate scale. Each is the mean over several
sampling seeds.
Generators are runs that were named, or the AR probe (`gfid.probe`, eval/systems/probe.py), by which
gFID becomes a property of the tokenizer. Samples are spread evenly over the classes, and their
draws are keyed by sample number, so batches and ranks cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.frame_rates import of_samples
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, Skip, register
from vistok.eval.protocols.sample_texts import conditioned, texts_missing, texts_of
from vistok.eval.reference.cmmd import cmmd_row
from vistok.eval.reference.real import RealStats
from vistok.eval.reference.sets import MS_SSIM, MetricNames, SetMeasures
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.facts import Scale
from vistok.eval.results.rows import Row
from vistok.eval.results.text import scale_text
from vistok.eval.systems.probe import no_probe
from vistok.eval.systems.runs import System, class_names
from vistok.metrics.stored import CAP
from vistok.tokens import Tokens, TokenSpec

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

MOST = 50_000  # samples, unless told otherwise: as many as published gFIDs have
_MODERATE = 1.5  # guidance scale of a generator that does not guide by itself
_FILE = "a reference was given instead"


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


class Pass(ProtocolConfig):
    """Config of one set of samples: a job of its own, so that a kill loses only one."""

    length: Selects[int]
    guidance: Selects[Scale] = 1.0  # the generator's own scale stands for all its own settings
    labels: Selects[Literal["equal", "random"]] = "equal"
    resize: Selects[int | None] = None
    trained: Selects[bool] = True  # else the same generator with fresh weights: the baseline
    samples: Selects[int | None] = None
    training: Selects[dict[str, Any] | str] = _FILE  # identity of the images, or why there are none
    metrics: Selects[MetricNames] = ()
    stored: Selects[int] = CAP


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
        real: TrainingSet | str = _FILE
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
                rows += self._distances(part.context, stats, config, note, common)
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
        self, context: Context, stats: Any, config: Pass, note: str, common: dict[str, Any]
    ) -> list[Row]:
        """Fréchet distances of what the context's (only) network saw of the samples."""
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
            rows.append(context.frechet_row(name, stats, side, note=said, **common))
        return rows


def of_seeds(job: Job, first: int, count: int) -> list[Job]:
    """The job with each of `count` seeds from the evaluation's own, `first`, on; the cache has one
    outcome for each, the same as of an evaluation with that seed."""
    return [job, *(replace(job, seed=first + more) for more in range(1, count))]


def prepared(context: Context, config: Pass, what: str) -> tuple[Any, str] | None:
    """(the job's generator, ready to sample, and a note on it); None, and a skip of `what`, where
    texts are missing."""
    generator = context.job.generator
    model = generator.generator.to(context.device).eval()
    reason = texts_missing(context, model)
    if reason is None and not readable(context, model):
        reason = "the decoder reads text, and samples have none; evaluate with a data.caption"
    if reason is None and config.resize is not None and len(context.sides) == 3:
        reason = f"resize={config.resize} is for images; these samples are clips"
    if reason is not None:
        context.skip(what, reason, generator.name)
        return None
    note = f"tokens of {context.run.name}" + f"; {generator.fit}" * bool(generator.fit)
    if not config.trained:
        model = model.untrained(seed=0).to(context.device)
        note = f"baseline: the same generator with fresh weights (seed 0); {note}"
    return model, note


def title_of(generator: Any, config: Pass) -> str:
    """Title of the progress bar of a pass."""
    scale = scale_text(config.guidance)
    return f"{generator.name}: guidance {scale}, length {config.length}"


def common_fields(context: Context, config: Pass) -> dict[str, Any]:
    """Fields of all rows of a pass of the job's generator."""
    generator = context.job.generator
    followed = settings(context, generator.generator, config.guidance).model_dump(mode="json")
    return {
        "run": generator.name,
        "weights": {"tokenizer": context.run.sha256, "generator": generator.sha256},
        "length": config.length,
        "sampling": {
            "generator": followed,
            **({"decoder": context.decoder_sampling} if context.samples else {}),
        },
        "seed": context.seed,
        "condition": _condition_name(context, generator.generator, config.labels),
        "precision": followed.get("precision") or "fp32",
        **({} if config.resize is None else {"size": (config.resize, config.resize)}),
    }


def passes(spec: TokenSpec, scales: Sequence[float]) -> list[Pass]:
    """Whole sequences without and with guidance; shorter prefixes and the baseline without."""
    found = [Pass(length=spec.max_prefix, guidance=scale) for scale in scales]
    found += [Pass(length=length) for length in spec.eval_lengths[:-1]]
    return [*found, Pass(length=spec.max_prefix, trained=False)]


def scales_of(model: Any, guidance: Sequence[float] | None) -> tuple[Scale, ...]:
    """The guidance scales that a generator can follow, 1 first."""
    own = model.config.condition
    given = (model.num_classes and own.null_class) or model.reads_text
    if not given or "guidance" not in type(model.sampling).model_fields:
        return (1.0,)
    if guidance is None:
        guidance = (model.sampling.guidance if model.sampling.guided else _MODERATE,)
    return tuple(dict.fromkeys((1.0, *guidance)))


def settings(context: Context, model: Any, guidance: Scale) -> Any:
    """The generator's whole sampling settings: its own, the user's changes, and the guidance.

    Scale 1 is its preset `unguided`; its own scale leaves its schedule as it is, and so does
    another one, which the schedule then grows to.
    """
    changes = dict(context.sampling.get("generator", {}))
    if "guidance" in type(model.sampling).model_fields:
        off = {"preset": "unguided", **model.unguided}
        changes |= off if guidance == 1.0 else {"guidance": guidance}
    return model.settings(changes)


def readable(context: Context, model: Any) -> bool:
    """True unless the tokenizer's decoder reads texts that samples do not have."""
    return (
        model.reads_text
        or context.condition_name == "none"
        or (context.captions(labels_of(model, torch.zeros(1, dtype=torch.int64)), 1) is not None)
    )


def _condition_name(context: Context, model: Any, labels: str) -> str:
    named = "class" if labels == "equal" else f"class ({labels})"
    given = [named] if class_names(model) else []
    if model.reads_text and context.condition_name == "none":
        kind, what = next(iter(context.views.record.get("text", {"?": "?"}).items()))
        given.append(f"text: {kind} {what}")
    if model.config.condition.first_frames is not None:
        given.append(f"first {model.config.condition.first_frames} frames of the clips")
    given.append(context.condition_name)
    return ", ".join(name for name in given if name != "none") or "none"


def decoded(context: Context, model: Any, index: Tensor, one: Pass) -> Tensor:
    """[B, 3, *sides] uint8: `pixels_of` the samples of numbers `index` [B]."""
    return to_uint8(pixels_of(context, model, index, one))


def pixels_of(context: Context, model: Any, index: Tensor, one: Pass) -> Tensor:
    """[B, 3, *sides] in 0..1: the samples of numbers `index` [B], under captions of their classes,
    or the texts that the generator read."""
    tokens, condition = sample(context, model, index, one), None
    if context.condition_name != "none":
        labels = labels_of(model, index, one.labels, context.seed)
        texts = context.captions(labels, len(index))
        if model.reads_text:
            texts = texts_of(context, index, labels)
        condition = context.tokenizer.condition(texts)
    condition = of_samples(context, condition, len(index))
    pixels = context.decode(tokens, condition, index)
    if one.resize is not None:
        sides = (one.resize, one.resize)
        pixels = F.interpolate(pixels, size=sides, mode="bicubic", align_corners=False)
    return pixels


def labels_of(model: Any, index: Tensor, labels: str = "equal", seed: int = 0) -> Tensor | None:
    """Classes [B] of the samples `index`, in turn or at random; None for a generator without."""
    count = len(class_names(model))
    if not count:
        return None
    if labels == "equal":
        return index % count
    u = Rng(seed, "gfid_labels").uniform(index.cpu())
    return (u * count).long().clamp(max=count - 1).to(index.device)


def sample(context: Context, model: Any, index: Tensor, one: Pass) -> Tokens:
    """Token sequences of the sample numbers `index` [B], stopped at the pass' length."""
    index = index.to(context.device)
    whole = one.length == context.spec.max_prefix
    return model.sample(
        conditioned(context, model, index, labels_of(model, index, one.labels, context.seed)),
        index=index,
        seed=context.seed,
        length=None if whole else one.length,
        sampling=settings(context, model, one.guidance),
    )


def sample_into(
    measures: SetMeasures, context: Context, model: Any, one: Pass, samples: int, title: str
) -> None:
    """Add this rank's share of `samples` decoded samples to the measures."""
    for index in context.numbers(title, samples, measures):
        measures.update(decoded(context, model, index, one), index)


def samples_of(
    context: Context, model: Any, classes: Sequence[int], each: int, guidance: Scale
) -> Tensor:
    """[classes, each, 3, *sides] uint8: the first samples of some classes, those of the statistics.

    `classes` are labels; [0] for a generator without classes.
    """
    count = max(1, len(class_names(model)))
    index = torch.tensor(classes)[:, None] + count * torch.arange(each)  # [classes, each]
    parts = index.flatten().split(context.batch)
    one = Pass(length=context.spec.max_prefix, guidance=guidance)
    made = [decoded(context, model, part, one) for part in parts]
    return torch.cat(made).cpu().unflatten(0, index.shape)


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
