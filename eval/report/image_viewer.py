"""The images of a page: the same images of all runs together, with one slider.

Grids of reconstructions (and of perturbed tokens) that begin with the same originals become one
viewer: the originals once, then a lane for each run with a strip for each length. A page without
scripts shows every strip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vistok.core.errors import InputError

_CELL = 128  # pixels on the page to which small images are enlarged, by a whole factor
_SLIDING = {"reconstructions": "kept length", "perturbed": "perturbation"}
_PICTURE = re.compile(r"data:image/(png|webp|jpeg);base64,[A-Za-z0-9+/=]*")


@dataclass(frozen=True)
class Strip:
    label: str
    uri: str
    at: int  # its stop on the slider: tokens, or the number of a perturbation
    bits: int | None = None


@dataclass(frozen=True)
class Lane:
    """One run's strips, in the order in which a page lists them."""

    run: str
    place: int  # color
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Viewer:
    kind: str
    axis: str  # what its slider moves
    size: tuple[int, int]
    cells: int
    columns: tuple[str, ...]
    original: Strip
    lanes: tuple[Lane, ...]

    @property
    def pixels(self) -> int:
        """Side of a cell on the page."""
        return shown_side(self.size[1])

    @property
    def small(self) -> bool:
        return self.size[1] < _CELL

    @property
    def lossless(self) -> bool:
        """True if its images are stored without loss, so that differences are exact."""
        uris = [s.uri for lane in self.lanes for s in lane.strips]
        return all(uri.startswith("data:image/png") for uri in [self.original.uri, *uris])

    @property
    def two_axes(self) -> bool:
        """True if lanes line up differently by bits than by tokens."""
        strips = [s for lane in self.lanes for s in lane.strips]
        return len({s.bits / s.at for s in strips if s.bits and s.at}) > 1


def shown_side(width: int) -> int:
    """Pixels to which a cell is enlarged by a whole factor, or to which a large one is reduced."""
    return _CELL // width * width if width <= _CELL else _CELL


def viewers(
    image_grids: Iterable[dict[str, Any]], kind: str, colors: dict[str, int]
) -> list[Viewer]:
    """One for each set of originals; ValueError for an image that is not inside the file."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for grid in image_grids:
        if grid["kind"] == kind and kind in _SLIDING and grid["rows"]:
            key = (checked(grid["rows"][0]["uri"]), *grid["size"], *grid["columns"])
            groups.setdefault(key, []).append(grid)
    found = []
    for grids in groups.values():
        first = grids[0]
        found.append(
            Viewer(
                kind=kind,
                axis=_SLIDING[kind],
                size=tuple(first["size"]),
                cells=first.get("cells") or len(first["columns"]),
                columns=tuple(first["columns"]),
                original=_strip(first["rows"][0], 0),
                lanes=tuple(_lane(grid, colors) for grid in grids),
            )
        )
    return found


def checked(uri: str) -> str:
    """A page loads nothing: an image is a data URI of a bitmap, whatever results.json says."""
    if not _PICTURE.fullmatch(uri):
        raise InputError(
            f"image {uri[:60]!r}: expected data:image/png, webp or jpeg in base64; evaluate again"
        )
    return uri


def _lane(grid: dict[str, Any], colors: dict[str, int]) -> Lane:
    rows = grid["rows"][1:]
    # Older reconstructions have no numbers: they run from the longest to the shortest.
    number = lambda i: i if grid["kind"] == "perturbed" else len(rows) - i
    strips = tuple(_strip(row, row.get("tokens", number(i))) for i, row in enumerate(rows))
    return Lane(grid["run"], colors.get(grid["run"], 0), strips)


def _strip(row: dict[str, Any], at: int) -> Strip:
    return Strip(row["label"], checked(row["uri"]), at, row.get("bits"))
