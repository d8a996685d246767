"""Scan of video files: each is decoded from end to end, at its own size."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from vistok.core.regular_files import open_regular
from vistok.data.base import BadSample
from vistok.data.check.clip_facts import ClipFacts
from vistok.data.check.findings import Scanned
from vistok.data.decode.video import clips
from vistok.data.kinds.folder import shown
from vistok.data.kinds.video import VideoDataset


def scan_clip(dataset: VideoDataset, row: int) -> Scanned:
    """Facts about one file; never raises for what is wrong with it.

    Size, length and hash are those of the frames that decode, whatever clip a config would take of
    them; that it can take one is looked at too (`problem`).
    """
    file = dataset.names[row]
    path, name = dataset.root / file, shown(file)
    facts: dict[str, Any] = {"label": dataset.labels[row]}
    pixels = hashlib.blake2b(digest_size=16)
    low, high = np.full(3, 255, np.uint8), np.zeros(3, np.uint8)

    def look(frame: Any) -> None:
        rgb = np.ascontiguousarray(frame.to_ndarray(format="rgb24", threads=1))
        pixels.update(f"{rgb.shape}".encode())
        pixels.update(rgb)
        np.minimum(low, rgb.min((0, 1)), out=low)
        np.maximum(high, rgb.max((0, 1)), out=high)

    index = None
    try:
        index = clips.probe(path, name, decode=True, look=look)
        with open_regular(path, "rb") as stored:
            hashed = hashlib.file_digest(stored, lambda: hashlib.blake2b(digest_size=16))
        facts |= {"bytes": path.stat().st_size, "stored": hashed.digest()}
        dataset.wanted(index, name)
    except BadSample as bad:
        reason = f"{bad.reason}; {index.unused}" if index and index.unused else bad.reason
        return Scanned(bad.name, reason, **facts)
    except OSError as error:  # the file vanished meanwhile
        return Scanned(name, f"cannot be read ({error.strerror or error})", **facts)
    height, width = index.sizes[0][1]
    return Scanned(
        name,
        **facts,
        pixels=pixels.digest(),
        size=(width, height),
        constant=bool((low == high).all()),
        partial=index.unused,
        odd="; ".join(index.oddities),
        clip=ClipFacts(
            width, height, index.fps, index.frames, index.seconds, index.codec, index.container
        ),
    )
