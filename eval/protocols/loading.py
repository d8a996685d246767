"""How fast samples come: the loader beside a bare loop of the same work, and a start far in.

`measure_loading` decodes and resizes the same pictures in a plain pool of processes and through
`TrainLoader`, in turn, and reports the medians; the loader does more (hashing the order, checking
headers, batching, one tensor a batch), and the ratio is what that costs.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistok.data import DataError, Dataset, FolderConfig, Order, TrainLoader
from vistok.data.folder import FolderDataset
from vistok.registry import build


def measure_loading(
    folder: str | Path,
    *,
    size: int = 256,
    workers: int | None = None,
    batch: int = 32,
    pictures: int = 2000,
    repeats: int = 3,
) -> dict[str, Any]:
    """Images/s of a bare pool and of the loader over a folder's pictures, and their ratio.

    Args:
        folder: pictures in class folders; they are read in turn until there are `pictures`.
        size: side of the square they are cropped and resized to.
        workers: processes of each; None = the cores this process may use.
        batch: samples of a batch of the loader.
        repeats: of both, in turn; the medians count.
    """
    cores = workers or len(os.sched_getaffinity(0))
    dataset = build(FolderConfig(path=str(folder), size=size)).open("train")
    steps = -(-pictures // batch)
    raw, loaded = [], []
    for repeat in range(repeats):
        loaded.append(_loader_rate(dataset, steps, batch, cores, seed=repeat))
        raw.append(_raw_rate(dataset, steps * batch, size, cores, seed=repeat))
    rates = statistics.median(raw), statistics.median(loaded)
    return {
        "raw": rates[0],
        "loader": rates[1],
        "ratio": rates[1] / rates[0],
        "workers": cores,
        "pictures": steps * batch,
        "size": size,
        "batch": batch,
        "repeats": [list(pair) for pair in zip(raw, loaded, strict=True)],
    }


def measure_start(dataset: Dataset, *, batch: int = 32, far: int = 10_000_000) -> dict[str, float]:
    """Seconds to the second batch from sample 0 and from sample `far`, each from a new order."""
    seconds = {}
    opened = pickle.dumps(dataset)  # each start gets a copy that has read nothing yet
    for name, start in (("start", 0), ("far", far // batch + 1), ("again", 0)):
        copy, order = pickle.loads(opened), Order(len(dataset), batch, seed=0)
        began = time.perf_counter()
        loader = TrainLoader(copy, order, steps=start + 2, start_step=start)
        for _ in loader:
            pass
        seconds[name] = time.perf_counter() - began
    # The first start also warms the disk's cache; the second is the fair one.
    return {"start": seconds["again"], "far": seconds["far"], "first": seconds["start"]}


def _loader_rate(dataset: Dataset, steps: int, batch: int, workers: int, seed: int) -> float:
    """Images/s after the first round of batches, which pays for starting the workers."""
    skip = 2 * workers
    order = Order(len(dataset), batch, seed)
    loader = TrainLoader(dataset, order, steps=steps + skip, workers=workers, max_bad_share=0.0)
    for number, _ in enumerate(loader, 1):
        if number == skip:
            began = time.perf_counter()
    return steps * batch / (time.perf_counter() - began)


def _raw_rate(dataset: FolderDataset, count: int, size: int, workers: int, seed: int) -> float:
    """The same pictures in the same order, read, decoded and resized, the pixels thrown away."""
    if not isinstance(dataset, FolderDataset):
        raise DataError(f"{type(dataset).__name__}: the raw rate is that of files in a folder")
    order = Order(len(dataset), 1, seed)
    files = [str(dataset.root / dataset.names[order.at(i)[1]]) for i in range(count)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        pool.map(_warm, range(4 * workers))
        began = time.perf_counter()
        jobs = ((file, size) for file in files)
        done = sum(pool.imap_unordered(_decode_resize, jobs, chunksize=32))
        seconds = time.perf_counter() - began
    if done != count:
        raise DataError(f"{dataset.root}: {done} of {count} pictures were decoded")
    return count / seconds


def _warm(_: int) -> None:
    import PIL.Image  # noqa: F401


def _decode_resize(job: tuple[str, int]) -> int:
    from PIL import Image

    path, size = job
    with open(path, "rb") as file:
        data = file.read()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return int(image.size == (size, size))


def start_table(seconds: dict[str, dict[str, float]]) -> list[Sequence[str]]:
    """Rows (kind, seconds at 0, seconds far in, ratio) of `measure_start` by kind."""
    return [
        (kind, f"{s['start']:.3f} s", f"{s['far']:.3f} s", f"{s['far'] / s['start']:.2f}")
        for kind, s in seconds.items()
    ]
