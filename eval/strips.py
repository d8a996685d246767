"""Image grids of a report: strips of small images as data URIs, kept in results.json.

A grid is a list of strips (rows); a strip is one image file with its cells side by side, so that a
browser scales it as a whole and a report holds few files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vistok.drawing import data_uri

_LOSSLESS = 96  # pixels of a side up to which strips are PNG; larger ones would weigh too much


def strip(images: Tensor) -> str:
    """[n, 3, H, W] uint8 -> a data URI of one image, n cells side by side."""
    from PIL import Image

    row = images.cpu().permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, n W, 3]
    return data_uri(Image.fromarray(row.numpy()), images.shape[-1] <= _LOSSLESS)


def grid(
    kind: str,
    run: str,
    rows: list[tuple[str, Tensor]],
    columns: list[str],
    places: Sequence[dict[str, int]] = (),
) -> dict[str, Any]:
    """A grid of strips.

    Args:
        rows: (label, [n, 3, H, W] uint8).
        places: more facts about each row, e.g. {"tokens": 4, "bits": 48}.
    """
    more = places or [{} for _ in rows]
    height, width = rows[0][1].shape[-2:]
    return {
        "kind": kind,
        "run": run,
        "size": [height, width],
        "columns": columns,
        "cells": len(rows[0][1]),
        "rows": [
            {"label": label, "uri": strip(images), **extra}
            for (label, images), extra in zip(rows, more, strict=True)
        ],
    }
