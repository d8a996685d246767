"""Conditions of samples from the data: texts of generators that read text, known frames of those
that continue clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from vistok.config.errors import UserError
from vistok.core.records import Condition
from vistok.eval.context import Context
from vistok.layers.frames import hold
from vistok.tokens import Tokens

NO_TEXTS = (
    "the generator reads text, and the data give none; evaluate with texts of the data (text=txt "
    "of webdataset, text_column of huggingface), or with a data.caption"
)


def texts_of(context: Context, index: Tensor, labels: Tensor | None) -> tuple[str, ...] | None:
    """Texts of the samples `index` [B]; None if the data give none.

    Where the data make captions of class names, that of each sample's class, all classes in turn
    for a generator without; else the text of the image of the same number, in turn.
    """
    dataset, numbers = context.views.dataset, index.tolist()
    caption = dataset.caption
    if caption is not None and caption.given:
        count = max(1, len(dataset.classes))
        named = [number % count for number in numbers] if labels is None else labels.tolist()
        return tuple(caption(label, "a sample") for label in named)
    if not dataset.texts:
        return None
    return tuple(dataset.sample(number % len(context.views)).text for number in numbers)


def texts_missing(context: Context, model: Any) -> str | None:
    """Reason why this generator cannot be given the texts that it reads; None if it can, or reads
    none."""
    if not model.reads_text:
        return None
    dataset = context.views.dataset
    if not dataset.texts and (dataset.caption is None or not dataset.caption.given):
        return NO_TEXTS
    try:
        model.text_encoder  # noqa: B018  (loads it)
    except UserError as error:
        return f"its text encoder: {error}"
    return None


def conditioned(context: Context, model: Any, index: Tensor, labels: Tensor | None) -> Condition:
    """The condition of the samples `index` [B]: their classes, texts if the generator reads any,
    and known frames if it continues clips."""
    known = known_frames(context, model, index)
    if not model.reads_text:
        return Condition(label=labels, prefix=known)
    found = model.text_condition(texts_of(context, index, labels))
    return Condition(
        label=labels, text=found.text, text_mask=found.text_mask, pooled=found.pooled, prefix=known
    )


def known_frames(context: Context, model: Any, index: Tensor) -> Tokens | None:
    """Tokens of the first frames of the evaluated clips of numbers `index` [B], in turn, for a
    generator that continues clips; None for others."""
    first = model.config.condition.first_frames
    if first is None:
        return None
    real = context.views.chosen([number % len(context.views) for number in index.tolist()])
    held = replace(real, pixels=hold(real.pixels, first))
    return context.encode(held, context.condition(held))
