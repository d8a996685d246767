"""The images of a page: the same images of all runs together, with one slider.

Grids of reconstructions (and of perturbed tokens) that begin with the same originals become one
viewer: the originals once, then a lane for each run with a strip for each length. Training images
stand beside the held-out ones of the same runs. A page without scripts shows every strip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vistok.core.errors import InputError

_CELL = 128  # pixels on the page to which small images are enlarged, by a whole factor
_SLIDING = {"reconstructions": "kept length", "perturbed": "perturbation"}
_PICTURE = re.compile(r"data:image/(png|webp|jpeg);base64,[A-Za-z0-9+/=]*")
_TITLES = {"val": "held out", "train": "seen in training"}


@dataclass(frozen=True)
class Part:
    """Images that stand side by side: of one split, with a name above each."""

    title: str
    size: tuple[int, int]
    cells: int
    columns: tuple[str, ...]
    uri: str  # the originals
    moving: bool = False  # clips that play

    @property
    def small(self) -> bool:
        return self.size[1] < _CELL


@dataclass(frozen=True)
class Strip:
    """One row of a run: an image file for each part of the viewer."""

    label: str
    uris: tuple[str, ...]
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
    parts: tuple[Part, ...]
    lanes: tuple[Lane, ...]

    @property
    def cells(self) -> int:
        """Images of a row, over all parts."""
        return sum(part.cells for part in self.parts)

    @property
    def title(self) -> str:
        """Which images these are, where the parts do not say it themselves."""
        return self.parts[0].title if len(self.parts) == 1 else ""

    @property
    def pixels(self) -> int:
        """Side of a cell on a wide page: smaller where many runs stand below one another."""
        lanes, least = len(self.lanes), self.kind == "perturbed" or self.cells > 8
        most = 64 if lanes > 6 else 96 if lanes > 3 or least else _CELL
        return shown_side(self.parts[0].size[1], most)

    @property
    def lossless(self) -> bool:
        """True if its images are stored without loss, so that differences are exact."""
        uris = [uri for lane in self.lanes for strip in lane.strips for uri in strip.uris]
        uris += [part.uri for part in self.parts]
        return all(uri.startswith("data:image/png") for uri in uris)

    @property
    def two_axes(self) -> bool:
        """True if lanes line up differently by bits than by tokens."""
        strips = [s for lane in self.lanes for s in lane.strips]
        return len({s.bits / s.at for s in strips if s.bits and s.at}) > 1


def shown_side(width: int, most: int = _CELL) -> int:
    """Pixels to which a cell is enlarged by a whole factor, or to which a large one is reduced."""
    return most // width * width if width <= most else most


def viewers(
    image_grids: Iterable[dict[str, Any]], kind: str, colors: Mapping[str, int]
) -> list[Viewer]:
    """One for each set of originals; InputError for an image that is not inside the file."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for grid in image_grids:
        if grid["kind"] == kind and kind in _SLIDING and grid["rows"]:
            key = (checked(grid["rows"][0]["uri"]), *grid["size"], *grid["columns"])
            groups.setdefault(key, []).append(grid)
    sets = list(groups.values())
    training = [own for own in sets if _split(own[0]) == "train"]
    found, used = [], []
    for own in sets:
        if _split(own[0]) == "val":
            beside = next((other for other in training if _fit(own, other)), None)
            found.append([own] if beside is None else [own, beside])
            used += [] if beside is None else [beside]
    found += [[own] for own in training if own not in used]
    return [_viewer(kind, own, colors) for own in found]


def checked(uri: str) -> str:
    """A page loads nothing: an image is a data URI of a bitmap, whatever results.json says."""
    if not _PICTURE.fullmatch(uri):
        raise InputError(
            f"image {uri[:60]!r}: expected data:image/png, webp or jpeg in base64; evaluate again"
        )
    return uri


def _split(grid: Mapping[str, Any]) -> str:
    return grid.get("split", "val")


def _fit(held_out: list[dict[str, Any]], training: list[dict[str, Any]]) -> bool:
    """True if two sets of grids are of the same runs and rows, so that they can share lanes."""
    rows = lambda grids: {g["run"]: [row["label"] for row in g["rows"]] for g in grids}
    return rows(held_out) == rows(training)


def _viewer(kind: str, sets: list[list[dict[str, Any]]], colors: Mapping[str, int]) -> Viewer:
    """A viewer of grids of the same runs: a part for each of the `sets`."""
    parts = [_part(grids[0]) for grids in sets]
    by_run = [{grid["run"]: grid for grid in grids} for grids in sets]
    lanes = [_lane([own[run] for own in by_run], colors) for run in by_run[0]]
    return Viewer(kind, _SLIDING[kind], tuple(parts), tuple(lanes))


def _part(grid: Mapping[str, Any]) -> Part:
    columns = tuple(grid["columns"])
    cells = grid.get("cells") or len(columns)
    uri = checked(grid["rows"][0]["uri"])
    moving = (grid.get("frames") or 1) > 1
    return Part(_TITLES[_split(grid)], tuple(grid["size"]), cells, columns, uri, moving)


def _lane(grids: list[dict[str, Any]], colors: Mapping[str, int]) -> Lane:
    """Strips of one run; row i of every grid stands in strip i."""
    first = grids[0]
    rows = first["rows"][1:]
    # Older reconstructions have no numbers: they run from the longest to the shortest.
    number = lambda i: i if first["kind"] == "perturbed" else len(rows) - i
    strips = []
    for i, row in enumerate(rows):
        uris = tuple(checked(grid["rows"][i + 1]["uri"]) for grid in grids)
        strips.append(Strip(row["label"], uris, row.get("tokens", number(i)), row.get("bits")))
    return Lane(first["run"], colors.get(first["run"], 0), tuple(strips))
