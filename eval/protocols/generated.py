"""Samples of a generator, decoded: with which settings, guidance, classes and texts they are made.

Protocols that look at generated images, clips or tokens take them from here. Samples are spread
evenly over the classes, and their draws are keyed by sample number, so batches and ranks cannot
change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.core.rng import Rng
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.frame_rates import of_samples
from vistok.eval.protocols.base import ProtocolConfig, Selects
from vistok.eval.protocols.sample_texts import conditioned, texts_missing, texts_of
from vistok.eval.reference.sets import MetricNames, SetMeasures
from vistok.eval.results.facts import Scale
from vistok.eval.results.text import scale_text
from vistok.eval.systems.runs import class_names
from vistok.metrics.stored import CAP
from vistok.tokens import Tokens, TokenSpec

GIVEN = "a reference was given instead"
_MODERATE = 1.5  # guidance scale of a generator that does not guide by itself


class Pass(ProtocolConfig):
    """Config of one set of samples: a job of its own, so that a kill loses only one."""

    length: Selects[int]
    guidance: Selects[Scale] = 1.0  # the generator's own scale stands for all its own settings
    labels: Selects[Literal["equal", "random"]] = "equal"
    resize: Selects[int | None] = None
    trained: Selects[bool] = True  # else the same generator with fresh weights: the baseline
    samples: Selects[int | None] = None
    training: Selects[dict[str, Any] | str] = GIVEN  # identity of the images, or why there are none
    metrics: Selects[MetricNames] = ()
    stored: Selects[int] = CAP


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
