"""Speed of evaluation: features beside the bare network, reconstruction, perturbed tokens.

All of it is measured on one batch of the run's images, by the code that evaluations run. Ratios are
medians of pairs that were called in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vistok.config.contract import lacks
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.jobs import do
from vistok.eval.protocols import pfid, rfid
from vistok.eval.protocols.base import Job
from vistok.eval.results.rows import Row
from vistok.eval.speed.clock import Clock
from vistok.frozen import FeatureNetwork, perceptual_network
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats
from vistok.metrics.perturbed import QUICK_GRID, clip

if TYPE_CHECKING:
    from vistok.eval.systems.runs import Run

MakeRow = Callable[..., Row]  # (metric, value, note=, count=)
_SHARE = 8  # of a batch's images one in so many is decoded cell by cell


def evaluation_rows(
    run: Run, views: Views, network: FeatureNetwork, clock: Clock, row: MakeRow
) -> list[Row]:
    """Rows of a tokenizer run. `views`: its images, of which the first batch is taken."""
    one = Views(views.dataset, views.batch, min(views.batch, len(views)), views.device)
    perceptual = perceptual_network("vistok-cnn").to(views.device)
    context = Context(run, one, network, perceptual)
    pixels = next(iter(one.batches("features"))).pixels
    with exact():
        rows = _features(network, frames(pixels), clock, row)
        rows.append(_reconstruction(context, clock, row))
        return rows + _perturbed(context, clock, row)


def _features(network: FeatureNetwork, pixels: Tensor, clock: Clock, row: MakeRow) -> list[Row]:
    """Images/s of features with their statistics, and the share of the bare network in that."""
    stats, seen = FeatureStats(network.dim, pixels.device), to_uint8(pixels)
    whole = lambda: stats.update(network(to_uint8(pixels)))
    pairs = _in_turn(clock, whole, lambda: network.look(seen))
    rate = len(pixels) / statistics.median(first for first, _ in pairs)
    share = statistics.median(bare / first for first, bare in pairs)
    note = f"{network.name}: rounded to 8 bits, seen, and added to mean and covariance"
    return [
        row("features-images/s", rate, note=note, count=len(pixels)),
        row(
            "features-ratio",
            share,
            note="over the network's forward alone, on 8-bit pixels",
            count=len(pixels),
        ),
    ]


def _reconstruction(context: Context, clock: Clock, row: MakeRow) -> Row:
    """Images/s of the whole rFID protocol: every length, all its measures, both sides."""
    job = Job(rfid.RFID(), rfid.RFIDConfig())

    def whole() -> None:
        context.views = Views(  # which know no statistics of the real side yet
            context.views.dataset, context.batch, context.views.limit, context.device
        )
        do(job, context)

    clock.once(whole)
    seconds = statistics.median(clock.once(whole) for _ in range(clock.repeats))
    lengths = len(context.spec.eval_lengths)
    note = f"{lengths} length{'s' * (lengths > 1)}, all measures and both sides of the distances"
    return row("rfid-images/s", len(context.views) / seconds, note=note, count=len(context.views))


def _perturbed(context: Context, clock: Clock, row: MakeRow) -> list[Row]:
    """Perturbed images/s of pFID's quick cells on a few images, and the gain of decoding cells
    together; [] where it is not defined."""
    spec = context.spec
    if not spec.vocab or lacks(context.tokenizer.quantizer, "neighbours"):
        return []
    cells = clip(QUICK_GRID, pfid.branch_codes(spec))
    jobs = [pfid.Decoding(spec.max_prefix, cell, True) for cell in dict.fromkeys(cells)]
    some = range(0, len(context.views), _SHARE)
    run = lambda **how: pfid.reconstruct(context, jobs, some, **how)
    pairs = _in_turn(clock, run, lambda: run(together=False))
    made = len(some) * len(jobs)
    rate = made / statistics.median(first for first, _ in pairs)
    gain = statistics.median(apart / first for first, apart in pairs)
    what = f"{len(jobs)} cells of {len(some)} image{'s' * (len(some) > 1)}"
    return [
        row("pfid-quick-images/s", rate, note=f"perturbed images: {what}", count=made),
        row("pfid-batch-gain", gain, note=f"{what}, decoded together over one by one", count=made),
    ]


def _in_turn(
    clock: Clock, first: Callable[[], Any], second: Callable[[], Any]
) -> list[tuple[float, float]]:
    """Seconds of both, called in turn, after one call of each to warm up."""
    for function in (first, second):
        clock.once(function)
    return [(clock.once(first), clock.once(second)) for _ in range(clock.repeats)]
