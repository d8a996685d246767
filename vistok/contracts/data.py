"""Checks of data sets: samples by index, class names, a record, and other processes."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from typing import Any

import torch

from vistok.contracts.case import Case
from vistok.contracts.check import check, expect, expect_equal, expect_shape
from vistok.data.base import UNLABELED, Dataset, Sample
from vistok.data.loading.stream import Stream

_FEW = 3  # samples of each split that are looked at


def _opened(case: Case, split: str) -> Any:
    opened = case.part().open(split)
    kind = isinstance(opened, Dataset | Stream)
    expect(kind, f"open('{split}') gives {type(opened).__name__}; expected a Dataset or a Stream")
    expect(len(opened) > 0, f"open('{split}') gives no samples; expected some")
    return opened


def _samples(opened: Any, epoch: int = 0) -> list[Sample]:
    if isinstance(opened, Dataset):
        return [opened.sample(index, epoch, 0) for index in range(min(_FEW, len(opened)))]
    read = islice(opened.read(0), _FEW)
    return [opened.decode(entry.content, place, epoch, 0) for place, entry in enumerate(read)]


@check("data", name="both splits open; samples have the shapes and classes that it states")
def samples(case: Case) -> None:
    for split in ("train", "val"):
        opened = _opened(case, split)
        for place, sample in enumerate(_samples(opened)):
            what = f"sample {place} of {split}"
            expect(isinstance(sample, Sample), f"{what} is {type(sample)}; expected a Sample")
            expect(sample.index == place, f"{what} has index {sample.index}; expected its place")
            sides = opened.sides
            if sides is not None:
                expect_shape(f"pixels of {what}", sample.pixels, (3, *sides), torch.uint8)
            known = range(UNLABELED, len(opened.classes))
            fits = sample.label in known
            expect(fits, f"{what} has label {sample.label} of {len(opened.classes)} classes")


@check("data", name="a sample depends on (index, epoch, seed) alone, in another process too")
def keyed(case: Case) -> None:
    opened = _opened(case, "train")
    first, again = _samples(opened, epoch=1), _samples(opened, epoch=1)
    other = _samples(pickle.loads(pickle.dumps(opened)), epoch=1)  # as a spawned worker gets it
    for place, sample in enumerate(first):
        if sample.pixels is None:
            continue
        what = f"sample {place}"
        expect_equal(f"{what} asked again", again[place].pixels, sample.pixels, "the first time")
        expect_equal(f"{what} of a copy", other[place].pixels, sample.pixels, "the original's")


@check("data", name="its record is JSON with kind, count and manifest")
def record(case: Case) -> None:
    for split in ("train", "val"):
        opened = _opened(case, split)
        found = opened.record()
        json.dumps(found)
        lacking = [key for key in ("kind", "count", "manifest") if key not in found]
        expect(not lacking, f"record() of {split} lacks {lacking}; expected these keys")
        count = found["count"]
        expect(count == len(opened), f"record() counts {count} of {len(opened)} samples")
