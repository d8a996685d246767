"""gFID: Fréchet distance of sampled and decoded images to real ones.

`gFID` is taken to statistics of the training images, as papers do it; `gFID-val` to the very
images that rFID uses, from the same samples. Each is measured with and without guidance.
Generators are runs that were named, or the AR probe (`--probe`, eval/probe.py), by which gFID
becomes a property of the tokenizer. Samples are spread evenly over the classes, and their draws are
keyed by sample number, so batches and ranks cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistok.core.records import Condition
from vistok.eval.context import Context
from vistok.eval.images import to_uint8
from vistok.eval.jobs import Job
from vistok.eval.options import Options
from vistok.eval.protocols.rfid import MS_SSIM
from vistok.eval.reference.real import RealStats
from vistok.eval.reference.sets import SetMeasures, wanted
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.rows import Decode, Row
from vistok.eval.systems.probe import no_probe
from vistok.eval.systems.runs import Pair, Run, class_names, untrained
from vistok.metrics.stored import CAP
from vistok.tokens import Tokens, TokenSpec

_MOST = 50_000  # samples, unless told otherwise: as many as published gFIDs have


@dataclass(frozen=True)
class Pass:
    """One set of samples; a job of its own, so that an interrupted sweep loses only one."""

    length: int
    guidance: float
    trained: bool = True  # else the same generator with fresh weights: the baseline


def jobs(pair: Pair, options: Options) -> list[Job]:
    """One for each pass of each generator; one that says what is missing where there is none."""
    if not pair.generators:
        work = lambda context: _nothing(context, pair, options)
        return [Job("gfid", work, {"probe": options.probe})]
    real: TrainingSet | str = "a reference was given instead"
    if options.reference is None:
        real = training_set(pair.tokenizer, options.data, options.train_limit or options.limit)
    further = tuple(m for m in wanted(options.metrics, (MS_SSIM,)) if m not in ("fid", MS_SSIM))
    found = []
    for generator in pair.generators:
        conditional = bool(class_names(generator.generator))
        for one in passes(pair.tokenizer.spec, options.guidance, conditional):
            settings = {
                "length": one.length,
                "guidance": one.guidance,
                "trained": one.trained,
                "samples": options.samples,
                "training": real if isinstance(real, str) else real.identity,
            }
            whole = one.trained and one.length == pair.tokenizer.spec.max_prefix
            extra = further if whole else ()
            if extra:
                settings |= {"metrics": list(extra), "stored": options.stored}
            work = _work(generator, one, real, options, extra)
            found.append(Job("gfid", work, settings, generator))
        if any(scale != 1.0 for scale in options.guidance) and not conditional:
            reason = f"{generator.name} has no classes: there is nothing to guide with"
            found.append(_skip("gFID with guidance", reason, generator))
        if isinstance(real, str) and options.reference is None:
            found.append(_skip("gFID", real, generator))
    return found


def passes(spec: TokenSpec, guidance: Sequence[float], conditional: bool) -> list[Pass]:
    """Whole sequences without and with guidance; shorter prefixes and the baseline without."""
    scales = (1.0, *guidance) if conditional else (1.0,)
    found = [Pass(spec.max_prefix, scale) for scale in dict.fromkeys(scales)]
    found += [Pass(length, 1.0) for length in spec.eval_lengths[:-1]]
    return [*found, Pass(spec.max_prefix, 1.0, trained=False)]


def run(
    context: Context,
    generator: Run,
    one: Pass,
    samples: int,
    real: TrainingSet | str,
    metrics: tuple[str, ...] = (),
    stored: int = CAP,
) -> list[Row]:
    """The rows of one pass: gFID (if there are training images), gFID-val, and further measures
    of the set (`metrics` of eval.sets) against the validation images."""
    model = generator.generator.to(context.device).eval()
    if not readable(context, model):
        reason = "the decoder reads text, and samples have none; evaluate with a data.caption"
        context.skip("gFID", reason, generator.name)
        return []
    note = f"tokens of {context.run.name}"
    if not one.trained:
        model = untrained(model).to(context.device)
        note = f"baseline: the same generator with fresh weights (seed 0); {note}"
    title = f"{generator.name}: guidance {one.guidance:g}, length {one.length}"
    measures = SetMeasures(context, samples, metrics, "gFID-val", stored)
    sample_into(measures, context, model, one, samples, title)
    stats = measures.decoded.pool.reduce()
    sides: dict[str, RealStats | None] = {}
    given = context.reference  # --reference: instead of the training images
    if given is not None or not isinstance(real, str):
        sides["gFID"] = real.stats(context) if given is None else given
    if one.trained or not sides:
        sides["gFID-val"] = None
    common = {
        "run": generator.name,
        "weights": generator.sha256,
        "length": one.length,
        "decode": Decode(
            guidance=one.guidance,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            seed=context.seed,
            steps=context.spec.positions_in(one.length),
        ),
        "condition": _condition_name(context, model),
    }
    rows = []
    for metric, side in sides.items():
        split = context.views.reference.split
        against = (
            f"reference: the {split} images, not training statistics"
            if side is None
            else f"reference: {side.reference.split} images ({side.reference.described})"
        )
        name = metric if one.trained else "gFID-untrained"
        rows.append(context.frechet_row(name, stats, side, note=f"{note}; {against}", **common))
    if metrics:
        against = f"reference: the {context.views.reference.split} images"
        rows += measures.rows(note=f"{note}; {against}", **common)
    return rows


def readable(context: Context, model: Any) -> bool:
    """Whether samples have the texts that the tokenizer's decoder reads, if it reads any."""
    return context.condition_name == "none" or (
        context.captions(labels_of(model, torch.zeros(1, dtype=torch.int64)), 1) is not None
    )


def _condition_name(context: Context, model: Any) -> str:
    given = (["class"] if class_names(model) else []) + [context.condition_name]
    return ", ".join(name for name in given if name != "none") or "none"


def decoded(context: Context, model: Any, index: Tensor, length: int, guidance: float) -> Tensor:
    """[B, 3, H, W] uint8: the samples of numbers `index` [B], under captions of their classes."""
    tokens, condition = sample(context, model, index, length, guidance), None
    if context.condition_name != "none":
        texts = context.captions(labels_of(model, index), len(index))
        condition = context.tokenizer.condition(texts)
    return to_uint8(context.decode(tokens, condition))


def labels_of(model: Any, index: Tensor) -> Tensor | None:
    """Classes in turn; None for a generator without classes."""
    count = len(class_names(model))
    return index % count if count else None


def sample(context: Context, model: Any, index: Tensor, length: int, guidance: float) -> Tokens:
    """Token sequences of the sample numbers `index` [B], stopped at `length`."""
    index = index.to(context.device)
    whole = length == context.spec.max_prefix
    return model.sample(
        Condition(label=labels_of(model, index)),
        index=index,
        seed=bench.seed,
        length=None if whole else length,
        sampling={"guidance": guidance},
    )


def sample_into(
    measures: SetMeasures, context: Context, model: Any, one: Pass, samples: int, title: str
) -> None:
    """Add this rank's share of `samples` decoded samples to the measures."""
    for index in context.numbers(title, samples, measures):
        measures.update(decoded(context, model, index, one.length, one.guidance), index)


def pictures(
    context: Context, model: Any, classes: Sequence[int], each: int, guidance: float
) -> Tensor:
    """[classes, each, 3, H, W] uint8: the first samples of some classes, those of the statistics.

    `classes` are labels; [0] for a generator without classes.
    """
    count = max(1, len(class_names(model)))
    index = torch.tensor(classes)[:, None] + count * torch.arange(each)  # [classes, each]
    parts = index.flatten().split(context.batch)
    made = [decoded(context, model, part, context.spec.max_prefix, guidance) for part in parts]
    return torch.cat(made).cpu().unflatten(0, index.shape)


def _work(
    generator: Run,
    one: Pass,
    real: TrainingSet | str,
    options: Options,
    metrics: tuple[str, ...],
) -> Any:
    def work(context: Context) -> list[Row]:
        samples = options.samples or min(_MOST, len(context.views))
        return run(context, generator, one, samples, real, metrics, options.stored)

    return work


def _skip(protocol: str, reason: str, generator: Run) -> Job:
    def work(context: Context) -> list[Row]:
        context.skip(protocol, reason)
        return []

    return Job("gfid", work, {"skipped": protocol, "reason": reason}, generator)


def _nothing(context: Context, pair: Pair, options: Options) -> list[Row]:
    reason = "no generator of this tokenizer's tokens among the runs (--probe trains one)"
    if options.probe is not None:
        reason = no_probe(pair.tokenizer, options) or reason
    context.skip("gFID", reason)
    return []
