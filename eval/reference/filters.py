"""The same images resampled with another filter, or with both usual ones in one evaluation.

FID moves with the filter that brings images to their size, on either side of the distance (Parmar
et al. 2022, arXiv 2104.11222). Here the images that the tokenizer reads and those that it is
compared with are resampled alike. Where no image has another size than the wanted one, nothing is
resampled: that is found by comparing the pixels, and said instead of measured again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.data import Dataset
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.systems.runs import Run, data_config
from vistok.runtime import distributed

BOTH = ("bilinear", "bicubic")
Asked = Literal["bilinear", "bicubic", "both"]


@dataclass(frozen=True)
class Filtered:
    """Images under one filter. `before`: the same ones under the filter that is measured first;
    None = this is the first."""

    filter: str
    dataset: Dataset
    before: Dataset | None = None

    def views(self, context: Context) -> Views:
        """The images as evaluation sees them, the same object for all runs on them."""
        own = _views(self.dataset, context.views)
        if own.record == context.views.record:
            return context.views
        known = ("filtered", json.dumps(own.record, sort_keys=True, default=str))
        return context.views.memo.setdefault(known, own)

    def resampled(self, context: Context) -> bool:
        """True if any image differs from that of the filter before; every rank must ask. It ends
        at the first that does."""
        if self.before is None:
            return True
        one, other = (_views(data, context.views).loader() for data in (self.dataset, self.before))
        pairs = zip(one, other, strict=True)
        differs = any(not torch.equal(a.pixels, b.pixels) for a, b in pairs)
        return bool(distributed.agree(differs))


def filtered(
    run: Run, changes: Mapping[str, Any] | None, asked: Asked
) -> tuple[list[Filtered], dict[str, str]]:
    """The run's validation images under each filter that is asked for, its own first, and why those
    that are missing cannot be: {filter: reason}."""
    config = data_config(run, changes)
    own = getattr(config, "filter", None)
    names = BOTH if asked == "both" else (asked,)
    names = sorted(names, key=lambda name: name != own)
    if own is None:
        kind = getattr(config, "kind", "its kind")
        why = f"data.kind={kind} has no filter to choose; its images are measured as they are"
        return [], dict.fromkeys(names, why)
    missing = {}
    if getattr(config, "crop", None) == "adm":
        missing = {n: "crop=adm is bicubic by definition" for n in names if n != "bicubic"}
    found: list[Filtered] = []
    for name in names:
        if name not in missing:
            here = config.model_copy(update={"filter": name})
            dataset = build(here).open("val", augment=False)
            found.append(Filtered(name, dataset, found[0].dataset if found else None))
    if not found and asked != "both":
        raise InputError(f"rfid.filter={asked}: {missing[asked]}; leave it out")
    return found, missing


def _views(dataset: Dataset, like: Views) -> Views:
    return Views(
        *(dataset, like.batch, like.limit, like.device, like.workers, like.cache),
        networks=like.networks,
    )
