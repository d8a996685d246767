"""Agreement of a reference file with the images of an evaluation, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vistok.config.errors import UserError
from vistok.eval.images import Views, network_of
from vistok.eval.reference.real import UNKNOWN, RealStats
from vistok.frozen import FeatureNetwork

FIELDS = ("network", "crop", "filter", "size", "split", "count", "data")
"""Fields in which two sides of a distance may differ: the values of `allow_mismatch`."""


class MismatchError(UserError, ValueError):
    """Two sides of a distance that were not made alike; the message names fields and values."""


@dataclass(frozen=True)
class Mismatch:
    """One field in which a reference file and the images of an evaluation differ."""

    field: str
    here: Any
    there: Any
    final: bool = False  # never comparable, whatever the user allows

    def __str__(self) -> str:
        return f"{self.field} is {_text(self.there)} there and {_text(self.here)} here"


def agreed(
    real: RealStats,
    views: Views,
    network: FeatureNetwork,
    protocol: str,
    allowed: Sequence[str] = (),
    source: str = "reference",
) -> RealStats:
    """The reference, with a remark for every mismatch that is allowed; MismatchError for others."""
    found = mismatches(real, views, network, protocol)
    bad = [one for one in found if one.final or one.field not in allowed]
    if bad:
        fields = sorted({one.field for one in bad if not one.final})
        ways = [] if any(one.final for one in bad) else [f"allow_mismatch=[{','.join(fields)}]"]
        raise MismatchError(
            f"{source}: {'; '.join(map(str, bad))} ({protocol} of {views.reference.name}); "
            + "make it alike with: vistok eval reference"
            + "".join(f", or say so with: {way}" for way in ways)
        )
    remarks = tuple(f"reference mismatch allowed: {one}" for one in found)
    return replace(real, remarks=remarks)


def mismatches(
    real: RealStats, views: Views, network: FeatureNetwork, protocol: str
) -> list[Mismatch]:
    """Fields in which the reference is known to differ from the images that are decoded.

    Of generated images (gfid) neither split nor number must be those of the reference: training
    statistics are what they are compared with. Of reconstructions (rfid) all must agree.
    """
    here, own, there = views.protocol, network_of(network), real.network
    found = []
    if real.stats.dim != network.dim:
        widths = [f"{n} features" for n in (network.dim, real.stats.dim)]
        found.append(Mismatch("network", f"{own.name} ({widths[0]})", widths[1], final=True))
    elif there is not None and there != own:
        name = lambda n: f"{n.name} {n.sha256[:12]}"
        found.append(Mismatch("network", name(own), name(there), final=there.name != own.name))
    for field in ("crop", "filter", "size"):
        value = getattr(real, field)
        if value is not None and value != here[field]:
            found.append(Mismatch(field, here[field], value))
    if protocol == "rfid":
        mine, theirs = views.reference, real.reference
        if theirs.split not in (UNKNOWN, mine.split):
            found.append(Mismatch("split", mine.split, theirs.split))
        if theirs.count not in (0, mine.count):
            found.append(Mismatch("count", mine.count, theirs.count))
        if there is not None and theirs.manifest != mine.manifest:
            name = lambda r: f"{r.name} {r.manifest[:12]}"
            found.append(Mismatch("data", name(mine), name(theirs)))
    return found


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
