"""Several data sets in one training run: each batch comes from one of them, drawn by weight.

A batch is of one data set, so images and clips may be mixed: a causal tokenizer takes images as
clips of one frame. In a config a list is enough, `data: [{kind: folder, ..., weight: 3}, {...}]`.
Validation reads the first data set, or `val`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.data.base import (
    UNLABELED,
    DataError,
    Dataset,
    Facts,
    Sample,
    Split,
    augments,
    describe_sides,
    manifest_hash,
    stated,
)

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MixConfig(Config):
    """Data sets and how often a batch comes from each."""

    kind: Literal["mix"] = "mix"
    sets: tuple[Annotated[Any, PartOf("data")], ...]
    """The data sets, of any kinds that are read by index. As a list, data: [{kind: ..., weight: 3},
    ...], each brings its own weight."""
    weights: tuple[Weight, ...] | None = None
    """Weight of each data set: batches come from it in proportion. null = all alike."""
    val: Annotated[Any, PartOf("data")] | None = None
    """Data whose validation split validates; null = the first of `sets`."""

    @model_validator(mode="after")
    def _fits(self) -> MixConfig:
        count = len(self.sets)
        if count < 2:
            given = "a list of one data set" if count else "an empty list"
            raise InputError(
                f"{given}; expected two or more that are mixed, or a mapping, data: {{kind: ...}}"
            )
        if self.weights is not None and len(self.weights) != count:
            raise InputError(f"{len(self.weights)} weights for {count} data sets; give one of each")
        if any(isinstance(one, MixConfig) for one in (*self.sets, self.val)):
            raise InputError("a mix inside a mix; list all data sets side by side")
        sizes = {number: stated(one).size for number, one in enumerate(self.sets)}
        known = [(number, size) for number, size in sizes.items() if size is not None]
        for number, size in known:
            if size != known[0][1]:
                raise InputError(_unequal(number, size, *known[0]))
        return self

    @property
    def validating(self) -> Any:
        """The data config whose validation split validates."""
        return self.sets[0] if self.val is None else self.val

    @classmethod
    def tiny(cls) -> MixConfig:
        photos = {"kind": "photos", "size": 16, "count": 6, "val_count": 2}
        return cls(sets=(photos, photos), weights=(3.0, 1.0))


def as_mix(data: Any) -> Any:
    """A list of data configs, each with its `weight` (or 1), as the config of a mix; anything else
    as it is. InputError for a weight that is none."""
    if not isinstance(data, list | tuple):
        return data
    sets, weights = [], []
    for number, one in enumerate(data):
        given = dict(one) if isinstance(one, Mapping) else one
        weight = given.pop("weight", 1.0) if isinstance(given, dict) else 1.0
        number_given = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number_given or not 0 < weight < math.inf:
            raise InputError(f"weight={weight} of data set {number}; expected a number above 0")
        sets.append(given)
        weights.append(weight)
    return {"kind": "mix", "sets": sets, "weights": weights}


@register("data", MixConfig)
class Mix:
    """Several data sets, each batch from one of them, drawn by weight."""

    def __init__(self, config: MixConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """The mixed training split, or the validation split of one data set.

        DataError for data sets that do not go together, and for images and clips that are to be
        read by index, as a token cache reads them.
        """
        config = self.config
        if split == "val":
            return build(config.validating).open("val", augment)
        opened = [build(one).open("train", augment) for one in config.sets]
        mixed = MixedDataset(opened, config.weights)
        if not augments(split, augment) and len({one.sides for one in opened}) > 1:
            raise DataError(
                "mix: images and clips, or clips of several lengths, cannot be read as one data "
                "set by index; give one of its sets as data"
            )
        return mixed


class MixedDataset(Dataset):
    """The samples of `sets` one after the other; `sides` are those of the largest.

    Classes are given where all sets have the same, texts where all have some.
    """

    def __init__(self, sets: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.sets = tuple(sets)
        self.weights = tuple(weights or [1.0] * len(sets))
        _check(self.sets)
        first = self.sets[0]
        self.firsts = np.cumsum([0, *(len(one) for one in sets)])
        largest = max(self.sets, key=lambda one: one.frames or 0)
        self.size, self.frames = first.size, largest.frames
        self.flip = any(one.flip for one in sets)
        same = len({tuple(one.classes) for one in sets}) == 1
        self.classes = tuple(first.classes) if same else ()
        self.texts = all(one.texts for one in sets)
        self.spec, self.features, self.empty_text = first.spec, first.features, first.empty_text
        self.targets = first.targets

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def place(self, index: int) -> tuple[int, int]:
        """(number of the data set, place in it) of a sample."""
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return number, index - int(self.firsts[number])

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        number, place = self.place(index)
        found = replace(self.sets[number].sample(place, epoch, seed), index=index)
        return found if self.classes else replace(found, label=UNLABELED)

    def record(self) -> dict[str, Any]:
        """`sets` are the records of the data sets, in order; `manifest` covers theirs."""
        records = [one.record() for one in self.sets]
        lines = (
            f"{weight:g} {record.get('manifest')}"
            for weight, record in zip(self.weights, records, strict=True)
        )
        return {
            "kind": "mix",
            "source": ", ".join(str(record.get("source")) for record in records),
            "split": "train",
            "count": len(self),
            "classes": len(self.classes),
            "weights": list(self.weights),
            "sets": records,
            "manifest": manifest_hash(lines),
        }


def _check(sets: Sequence[Facts]) -> None:
    """DataError for data sets that cannot take turns in training one model."""
    first = sets[0]
    for number, one in enumerate(sets):
        if not isinstance(one, Dataset):
            raise DataError(
                f"mix: data set {number} is read front to back ({type(one).__name__}); expected "
                "data that are read by index, such as a folder, parquet files or videos"
            )
        if (one.spec is None) != (first.spec is None) or one.spec != first.spec:
            raise DataError(
                f"mix: data set {number} gives {_given(one)}, data set 0 {_given(first)}; expected "
                "pixels of all, or tokens of one shape"
            )
        if one.size != first.size:
            raise DataError(f"mix: {_unequal(number, one.size, 0, first.size)}")
        if one.targets != first.targets:
            raise DataError(
                f"mix: data set {0 if first.targets else number} has pairs of images and data set "
                f"{number if first.targets else 0} none; expected pairs of all, or of none"
            )
        if one.features != first.features or not _equal(one.empty_text, first.empty_text):
            raise DataError(
                f"mix: data set {number} caches {', '.join(one.features) or 'no features'}, data "
                f"set 0 {', '.join(first.features) or 'none'}, or of other shapes or texts; "
                "expected caches that were made alike"
            )


def _given(one: Facts) -> str:
    if one.spec is not None:
        return f"tokens of {one.spec.length} positions, vocabulary {one.spec.vocab}"
    return describe_sides(one.sides)


def _unequal(number: int, size: Sequence[int], other: int, its: Sequence[int]) -> str:
    return (
        f"data set {number} has size={size[0]}x{size[1]}, data set {other} size={its[0]}x{its[1]}; "
        "a mix needs pixels of one size: give all sets the same `size`"
    )


def _equal(one: Any, other: Any) -> bool:
    """True if two conditions of the empty text have the same features."""
    if one is None or other is None:
        return one is other
    names = ("text", "text_mask", "pooled")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
