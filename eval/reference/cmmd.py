"""CMMD rows, for feature networks that it is defined on (`clip-cmmd`).

From the running means and covariances that every network has anyway: below the exact number by
less than what is printed (`vistok.metrics.cmmd`), and no vector is kept.
"""

from __future__ import annotations

from typing import Any

from vistok.eval.context import Context
from vistok.eval.images import network_of
from vistok.eval.reference.real import RealStats
from vistok.eval.results.rows import Row
from vistok.metrics import FeatureStats
from vistok.metrics.cmmd import REMAINDER, cmmd_of_statistics

_NOTE = f"from means and covariances, less than {REMAINDER:.4f} below the sum over all pairs"


def cmmd_row(
    context: Context, stats: FeatureStats, frechet: str, real: RealStats | None = None, **rest: Any
) -> Row:
    """The row of what the context's (only) network saw of a decoded set.

    Args:
        stats: of the decoded images, over all ranks.
        frechet: the name that a Fréchet distance of these sets has: rFID gives rCMMD.
        real: the reference; None = the real images of the context.
    """
    against = context.views.stats(context.features) if real is None else real.stats
    value = cmmd_of_statistics(stats, against)
    said = (rest.pop("note", ""), "" if real is None else real.note, _NOTE)
    common = {"features": network_of(context.features), "count": stats.count}
    if real is not None:
        common |= real.protocol
    name = frechet.removesuffix("-frame").replace("FID", "CMMD")
    return context.row(name, value, note="; ".join(filter(None, said)), **{**common, **rest})
