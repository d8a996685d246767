"""Image grids of a report: strips of small images as data URIs, kept in results.json.

A grid is a list of strips (rows); a strip is one image file with its cells side by side, so that a
browser scales it as a whole and a report holds few files. Strips of clips are animated WebP, which
browsers play by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vistok.drawing import data_uri, moving_uri
from vistok.layers.frames import frames

if TYPE_CHECKING:
    from PIL.Image import Image

FPS = 8.0  # of clips that do not say their own
_LOSSLESS = 96  # pixels of a side up to which strips are PNG; larger ones would weigh too much


def strip(images: Tensor, fps: float = FPS) -> str:
    """[n, 3, H, W] uint8 -> a data URI of one image, n cells side by side; of clips
    [n, 3, T, H, W] one that plays."""
    if images.ndim == 5 and images.shape[2] > 1:
        return moving_uri([_row(frame) for frame in images.unbind(2)], fps)
    images = frames(images)
    return data_uri(_row(images), images.shape[-1] <= _LOSSLESS)


def _row(images: Tensor) -> Image:
    from PIL import Image

    row = images.cpu().permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, n W, 3]
    return Image.fromarray(row.numpy())


def grid(
    kind: str,
    run: str,
    rows: list[tuple[str, Tensor]],
    columns: list[str],
    places: Sequence[dict[str, int]] = (),
    fps: float = FPS,
) -> dict[str, Any]:
    """A grid of strips.

    Args:
        rows: (label, [n, 3, H, W] uint8, of clips [n, 3, T, H, W]).
        fps: frames per second at which clips play.
        places: more facts about each row, e.g. {"tokens": 4, "bits": 48}.
    """
    more = places or [{} for _ in rows]
    first = rows[0][1]
    height, width = first.shape[-2:]
    count = first.shape[2] if first.ndim == 5 else 1
    return {
        "kind": kind,
        "run": run,
        "size": [height, width],
        "columns": columns,
        "cells": len(first),
        **({"frames": count, "fps": fps} if count > 1 else {}),
        "rows": [
            {"label": label, "uri": strip(images, fps), **extra}
            for (label, images), extra in zip(rows, more, strict=True)
        ],
    }
