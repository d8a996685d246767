"""A page stays below its size, whatever the runs, lengths and pixels; what it leaves out it says.

Images go first through stronger compression, then fewer of them, fewer lengths, fewer pixels and
at last fewer runs: the first step of the ladder that fits. results.json keeps all of them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from vistok.core.verbosity import quiet
from vistok.drawing import moving_uri
from vistok.eval.report.image_viewer import checked

LIMIT = 10_000_000  # bytes of the whole page
_FRAME = 700  # bytes of markup around a strip, at most about


@dataclass(frozen=True)
class Plan:
    """Images, rows and pixels that are kept of each grid; None = all."""

    quality: int | None = None  # of WebP; None = the file as it is
    cells: int | None = None
    rows: int | None = None  # without the originals
    side: int | None = None  # pixels of a cell
    runs: int | None = None

    def losses(self, grids: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """Lines of text: what this plan takes away from these grids."""
        said = [f"images compressed again as WebP of quality {self.quality}"]
        most = lambda values: max(values, default=0)
        strips = [g for g in grids if g["kind"] != "order"]
        cells = most(g.get("cells") or len(g["columns"]) for g in strips)
        rows = most(len(g["rows"]) - 1 for g in strips)
        side = most(max(g["size"]) for g in grids)
        runs = len({g["run"] for g in grids})
        if self.cells and cells > self.cells:
            said.append(f"the first {self.cells} of {cells} images")
        if self.rows and rows > self.rows:
            said.append(f"at most {self.rows} of {rows} lengths, perturbations or classes")
        if self.side and side > self.side:
            said.append(f"images of {side} pixels shown with {self.side}")
        if self.runs is not None and runs > self.runs:
            said.append(f"images of the first {self.runs} of {runs} runs")
        return tuple(said)


LADDER = (
    Plan(85),
    Plan(75, cells=6),
    Plan(75, cells=4),
    Plan(75, cells=4, rows=6),
    Plan(70, cells=4, rows=5, side=192),
    Plan(70, cells=3, rows=4, side=128),
    Plan(60, cells=2, rows=4, side=96),
    Plan(60, cells=2, rows=3, side=64),
    *(Plan(60, cells=2, rows=3, side=64, runs=count) for count in (100, 30, 10, 3, 0)),
)


def fit(
    grids: Sequence[dict[str, Any]], budget: int
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Grids whose strips take at most `budget` bytes, and what was taken away."""
    if weight(grids) <= budget:
        return list(grids), ()
    for plan in LADDER[:-1]:
        if _guess(grids, plan) <= 2 * budget:
            made = _apply(grids, plan)
            if weight(made) <= budget:
                return made, plan.losses(grids)
    return [], ("all images",)


def weight(grids: Sequence[dict[str, Any]]) -> int:
    """Bytes that the grids take in a page, at most."""
    return sum(len(row["uri"]) + _FRAME for grid in grids for row in grid["rows"])


def _guess(grids: Sequence[dict[str, Any]], plan: Plan) -> float:
    """About what `_apply` would weigh, without doing it."""
    total = 0.0
    for grid in _runs(grids, plan.runs):
        cells, fewer = _cells(grid, plan)
        rows = _thin(grid, plan.rows)
        share = fewer / max(cells, 1)
        share *= min(1.0, (plan.side or 10**6) / max(grid["size"])) ** 2
        total += sum(len(row["uri"]) * share * 0.5 + _FRAME for row in rows)
    return total


def _apply(grids: Sequence[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    kept = _runs(grids, plan.runs)
    made = []
    title, off = "fit images into the page", quiet()
    with tqdm(total=len(kept), desc=title, unit="grid", leave=False, disable=off) as bar:
        for grid in kept:
            made.append(_shrink(grid, plan))
            bar.update(1)
    return made


def _shrink(grid: dict[str, Any], plan: Plan) -> dict[str, Any]:
    cells, fewer = _cells(grid, plan)
    height, width = grid["size"]
    scale = min(1.0, (plan.side or max(height, width)) / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    rows = [
        {**row, "uri": _again(row["uri"], cells, fewer, size, plan.quality)}
        for row in _thin(grid, plan.rows)
    ]
    columns = grid["columns"][:fewer]
    return {**grid, "size": size, "cells": fewer, "columns": columns, "rows": rows}


def _again(uri: str, cells: int, fewer: int, size: Sequence[int], quality: int | None) -> str:
    """The first cells of a strip, made smaller; the old file where the new one is no smaller."""
    from PIL import Image, ImageSequence

    data = base64.b64decode(checked(uri).partition(",")[2])
    file = Image.open(io.BytesIO(data), formats=["PNG", "WEBP", "JPEG"])
    whole, made, shown = file.size, [], 1000 / 8
    for frame in ImageSequence.Iterator(file):  # one of a still image, all of a clip that plays
        image = frame.convert("RGB").crop((0, 0, file.width * fewer // cells, file.height))
        shown = frame.info.get("duration", shown)  # known once it is decoded
        made.append(image.resize((size[1] * fewer, size[0]), Image.Resampling.BOX))
    if len(made) > 1:
        new = moving_uri(made, 1000 / shown, quality or 75)
    else:
        buffer = io.BytesIO()
        made[0].save(buffer, "WEBP", quality=quality or 75, method=2)
        new = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return uri if made[0].size == whole and len(uri) <= len(new) else new


def _cells(grid: dict[str, Any], plan: Plan) -> tuple[int, int]:
    """Images of a strip, and how many of them stay. Those of `order` are one a token."""
    cells = grid.get("cells") or len(grid["columns"])
    return cells, cells if grid["kind"] == "order" else min(cells, plan.cells or cells)


def _thin(grid: dict[str, Any], rows: int | None) -> list[dict[str, Any]]:
    """Evenly spaced rows with both ends; originals always stay."""
    all_rows = grid["rows"]
    head = all_rows[:1] if grid["kind"] in ("reconstructions", "perturbed") else []
    rest = all_rows[len(head) :]
    if rows is None or len(rest) <= rows or grid["kind"] == "order":
        return list(all_rows)
    steps = max(1, rows - 1)
    chosen = sorted({round(i * (len(rest) - 1) / steps) for i in range(rows)})
    return [*head, *(rest[i] for i in chosen)]


def _runs(grids: Sequence[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(grid["run"] for grid in grids))
    kept = set(names if count is None else names[:count])
    return [grid for grid in grids if grid["run"] in kept]
