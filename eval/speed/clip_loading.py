"""Rate of clips: the loader beside a bare loop that decodes and resizes the same frames.

The bare loop opens a file with PyAV, decodes its first frames one after the other on one thread and
resizes each. The loader does more: it checks every frame against the file's index, keys the draws
and makes batches. Both count frames in a second, of the same files in the same order; clips begin
at the first frame, so that neither decodes frames that it then drops. An index is read when a file
is first seen, and kept: the first pass over files is measured apart.
"""

from __future__ import annotations

import os
import pickle
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vistok.config.registry import build
from vistok.data import DataError, Dataset, Order, VideoConfig
from vistok.data.kinds.video import ENDINGS
from vistok.data.kinds.walk import ending_of, walk
from vistok.eval.results.rows import Row
from vistok.eval.speed.bare import facts_of, loader_rate, pool_rate, squared

CLIPS, FRAMES = 400, 16  # clips of a measurement, frames of a clip


def holds_clips(folder: str | Path) -> bool:
    """True for a folder with videos in it, or below; animated images do not count."""
    moving = {*ENDINGS} - {".gif"}
    return Path(folder).is_dir() and any(ending_of(name) in moving for name in walk(str(folder)))


def open_clips(folder: str | Path, size: int, frames: int = FRAMES) -> Dataset:
    """The videos below a folder, from their first frame on; short ones are padded."""
    config = VideoConfig(
        path=str(folder), size=size, frames=frames, start="first", short="pad", decoder="pyav"
    )
    return build(config).open("train")


def measure_clips(
    folder: str | Path,
    *,
    size: int = 128,
    workers: int = 1,
    batch: int = 8,
    clips: int = CLIPS,
    repeats: int = 3,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Frames/s of a bare pool and of the loader over a folder's videos, and their ratio.

    Arguments as of `loading.measure_loading`; `clips` are read in each repeat.
    """
    dataset = dataset or open_clips(folder, size)
    for name in dataset.names:
        dataset.probe(name)  # workers are forked, and know it then
    steps = -(-clips // batch)
    raw, loaded = [], []
    for repeat in range(repeats):
        order = Order(len(dataset), batch, seed=repeat)
        loaded.append(_loader_rate(dataset, order, steps, workers))
        indices = [order.at(place)[1] for place in range(steps * batch)]
        done, rate = pool_rate(_decode_resize, dataset, indices, size, workers, each=4)
        if not done:
            raise DataError("no frame of the videos was decoded")
        raw.append(rate)
    order = Order(len(dataset), batch, seed=repeats)
    once = max(1, min(steps, len(dataset) // batch - 2 * workers))
    first = _loader_rate(pickle.loads(pickle.dumps(dataset)), order, once, workers)
    rates = statistics.median(raw), statistics.median(loaded)
    return {
        "raw": rates[0],
        "loader": rates[1],
        "ratio": rates[1] / rates[0],
        "first": first,
        "workers": workers,
        "clips": steps * batch,
        "repeats": [list(pair) for pair in zip(raw, loaded, strict=True)],
    }


def clip_rows(folder: str | Path, sizes: Sequence[int], repeats: int, batch: int) -> Iterator[Row]:
    """Rates of both and their ratio at each size, and the ratio of the first pass over files."""
    name, workers = Path(folder).resolve().name, len(os.sched_getaffinity(0))
    for size in sizes:
        dataset = open_clips(folder, size)
        facts = measure_clips(
            folder,
            size=size,
            workers=workers,
            batch=batch,
            clips=CLIPS,
            repeats=repeats,
            dataset=dataset,
        )
        common = facts_of(dataset, name, (FRAMES, size, size), batch)
        note = f"{workers} processes, {facts['clips']} clips of {FRAMES} frames"
        yield Row(metric="decode-frames/s", value=facts["raw"], note=note, **common)
        yield Row(metric="loader-frames/s", value=facts["loader"], note=note, **common)
        note = "loader over bare decode and resize"
        yield Row(metric="loader-ratio", value=facts["ratio"], note=note, **common)
        note = "the same where files are seen for the first time, and indexed"
        first = facts["first"] / facts["raw"]
        yield Row(metric="loader-first-ratio", value=first, note=note, **common)


def _loader_rate(dataset: Dataset, order: Order, steps: int, workers: int) -> float:
    """Frames/s of the loader."""
    return loader_rate(dataset, order, steps, workers) * dataset.frames


def _decode_resize(dataset: Dataset, index: int, size: int) -> int:
    """Frames of one clip that were decoded and resized."""
    import av

    frames = []
    with av.open(str(dataset.root / dataset.names[index])) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            image = Image.fromarray(frame.to_ndarray(format="rgb24", threads=1))
            frames.append(np.asarray(squared(image, size)))
            if len(frames) == dataset.frames:
                break
    return len(frames)
