"""CKNNA: do codes that are near each other belong to images that look alike to a frozen network?

The tokenizer's representation of an image is compared with the feature network's (`features`,
`weights`) by vistok.metrics.alignment. Of the tokenizer, both sides of its quantizer are looked at,
each as the mean over positions and with all positions side by side (`flat`). The number that stands
for itself is that of `codes/mean`, since REPA pools over positions too.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from vistok.core.records import Batch
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, bar, network_of
from vistok.eval.protocols.base import Protocol, ProtocolConfig, register
from vistok.eval.reference.training_set import Picked
from vistok.eval.results.rows import Row
from vistok.metrics.alignment import NEIGHBORS, cknna
from vistok.runtime.distributed import sum_

NAME = "alignment"
HEADLINE = "codes/mean"
WIDEST = 16384  # numbers of a tap: all pairs of images are compared
FEW = 1000  # images below which the number says as much of how many there are


class AlignmentConfig(ProtocolConfig):
    images: int = Field(default=10_000, ge=4)
    """Images that are compared with one another; of more, a keyed choice."""
    neighbors: int = Field(default=NEIGHBORS, ge=2)
    """Nearest images of each that are compared: k."""


@register
class Alignment(Protocol):
    """CKNNA: whether near codes belong to images that a frozen network finds alike."""

    name = NAME
    Config = AlignmentConfig

    def run(self, context: Context, config: AlignmentConfig) -> list[Row]:
        """CKNNA of each tap with the feature network, and that of the headline tap by itself."""
        views, limit = context.views, context.views.limit
        if config.images < len(views):
            picked = Picked(views.dataset, config.images, limit)
            views = Views(picked, views.batch, None, views.device, views.workers)
        count, k = len(views), config.neighbors
        needed = max(4, k + 2)
        if count < needed:
            context.skip(NAME, f"{count} images; {k} neighbors need {needed} or more")
            return []
        known, seen = collect(context, views)
        few = f"{count:,} images" if count < FEW else ""
        rows = []
        for tap, values in known.items():
            width = values.shape[1]
            with bar(2 * count, f"{context.run.name}: neighbors in {tap}") as progress:
                value = cknna(values, seen, k, progress.update)
            note = f"k={k}; {tap}: {width} numbers of an image"
            about = {"features": network_of(context.features), "count": count, "few": few}
            if tap == HEADLINE:
                rows.insert(0, context.row("CKNNA", value, note=note, **about))
            rows.append(context.row("CKNNA", value, point={"tap": tap}, note=note, **about))
        return rows


def collect(context: Context, views: Views) -> tuple[dict[str, Tensor], Tensor]:
    """({tap: [n, D]}, features [n, D']) of all images, in order, on every rank. Taps that are too
    wide are skipped before anything of them is kept."""
    seen = torch.zeros((len(views), context.features.dim), device=context.device)
    found = {}
    # Every rank sums the same taps, one without images too.
    for tap, one in taps(context, views.chosen([0])).items():
        width = one.shape[1]
        if width > WIDEST:
            context.skip(f"{NAME}, {tap}", f"{width} numbers; at most {WIDEST} are compared")
        else:
            found[tap] = seen.new_zeros((len(views), width))
    for batch in views.batches(f"{context.run.name}: representations"):
        seen[batch.index] = context.features(to_uint8(batch.pixels)).float()
        made = taps(context, batch)
        for tap, values in found.items():
            values[batch.index] = made[tap]
    return {tap: sum_(one) for tap, one in found.items()}, sum_(seen)


def taps(context: Context, batch: Batch) -> dict[str, Tensor]:
    """Pixels of a batch -> {tap: [B, D]}: what enters the quantizer, and what leaves it."""
    latents = context.latents(batch, context.condition(batch))
    quantized = context.tokenizer.quantize(latents)
    sides = {"codes": quantized.clean}
    if quantized.indices is not None:  # of continuous tokens, latents may be a distribution's
        sides = {"latents": latents.values, **sides}
    found = {}
    for name, values in sides.items():
        found[f"{name}/mean"] = values.float().mean(1)
        found[f"{name}/flat"] = values.float().flatten(1)
    return found
