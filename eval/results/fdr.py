"""FDr and FDr6 as rows: a gFID over that of the real validation images, by `vistok.metrics.fdr`.

Both distances are in one row: the gFID, and its floor, which has the same network, reference and
number of images (a floor of another number is no divisor, since distances fall with the number).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from vistok.eval.results.compare import protocol_of
from vistok.eval.results.rows import Network, Row
from vistok.eval.results.spread import mean_interval
from vistok.metrics.fdr import FDR6, fdr, ratio

_SOURCE = "gFID"
_SIX = "fdr6"  # name of the six networks together, as a row's feature network


def with_fdr(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, and behind them those that `fdr_rows` makes of them."""
    return (*rows, *fdr_rows(rows))


def fdr_rows(rows: Iterable[Row], networks: Sequence[str] = FDR6) -> list[Row]:
    """FDr of each gFID that has a floor, and FDr6 where all `networks` measured the same samples.

    A row whose FDr6 is not there says in its note which networks it lacks. Intervals and the
    values at several seeds are divided as the value is. FDr6 has those of several seeds alone,
    since the six distances of one set of samples vary together.
    """
    groups: dict[str, dict[str, tuple[Row, float]]] = {}
    for row in rows:
        floor = row.floor
        if row.metric != _SOURCE or not row.plain or row.features is None or floor is None:
            continue
        if row.features.name in networks and row.value is not None and floor.count == row.count:
            if floor.value > 0:
                groups.setdefault(_samples(row), {})[row.features.name] = (row, floor.value)
    made: list[Row] = []
    for group in groups.values():
        lacking = [name for name in networks if name not in group]
        note = f"no FDr6 without {', '.join(lacking)}" if lacking else ""
        made += [_ratio(row, floor, note) for row, floor in group.values()]
        if not lacking:
            made.append(_mean(group, networks))
    return made


def _samples(row: Row) -> str:
    """Equal for rows of the same samples and reference, whatever network looked at them."""
    said = {key: one for key, one in protocol_of(row).items() if not key.startswith("features.")}
    return _hash([row.run, row.length, row.weights, said])


def _ratio(row: Row, floor: float, note: str) -> Row:
    changes: dict[str, Any] = {"metric": "FDr", "value": ratio(row.value, floor)}
    if row.interval is not None:
        changes["interval"] = tuple(end / floor for end in row.interval)
    changes["each"] = tuple(None if one is None else one / floor for one in row.each)
    return _changed(row, note, changes)


def _mean(group: dict[str, tuple[Row, float]], networks: Sequence[str]) -> Row:
    first = group[networks[0]][0]
    distances = {name: row.value for name, (row, _) in group.items()}
    floors = {name: floor for name, (_, floor) in group.items()}
    seen = [group[name][0].features for name in networks]
    together = Network(
        name=_SIX,
        sha256=_hash([one.model_dump() for one in seen]),
        preprocess="; ".join(f"{one.name}: {one.preprocess}" for one in seen),
    )
    few = "; ".join(
        f"{name}: {group[name][0].few}" for name in networks if group[name][0].few
    )  # a mean is as weak as its weakest part
    changes = {"metric": "FDr6", "value": fdr(distances, floors, networks), "features": together}
    by_network = ([one / floors[name] for one in group[name][0].each] for name in networks)
    each = tuple(math.fsum(ratios) / len(networks) for ratios in zip(*by_network, strict=True))
    interval = mean_interval(each)
    varies = "" if interval is None else "seeds"
    changes |= {"few": few, "interval": interval, "varies": varies, "each": each}
    return _changed(first, "", changes)


def _changed(row: Row, note: str, changes: dict[str, Any]) -> Row:
    changes |= {"bias": None, "floor": None, "note": "; ".join(filter(None, (row.note, note)))}
    return row.model_copy(update=changes)


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
