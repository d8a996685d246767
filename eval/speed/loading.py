"""Rate of samples: the loader beside a bare loop of the same work, and a start far in.

`measure_loading` decodes and resizes the same images in a plain pool of processes and through
`TrainLoader`, in turn, and reports the medians; the loader does more (hashing the order, checking
headers, planes of a tensor, batching), and the ratio is what that costs. Where images have the
wanted size already, nothing is resized and the planes alone are a fifth of the work.
"""

from __future__ import annotations

import io
import os
import pickle
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vistok.config.registry import build
from vistok.data import DataError, Dataset, FolderConfig, Order, ParquetConfig, TrainLoader
from vistok.eval.results.rows import Row
from vistok.eval.speed import clip_loading
from vistok.eval.speed.bare import facts_of, loader_rate, pool_rate, squared

SIZES = (128, 256)
IMAGES = 2000
FAR = 10_000_000  # the sample at which a start far in begins


def loading_rows(folder: str | Path, repeats: int, batch: int = 32) -> Iterator[Row]:
    """Rates of both and their ratio at each size; seconds of a start, at sample 0 and far in.

    Of a folder of videos see `clip_loading`.
    """
    if clip_loading.holds_clips(folder):
        yield from clip_loading.clip_rows(folder, SIZES, repeats, max(1, batch // 4))
        return
    name = Path(folder).resolve().name
    for size in SIZES:
        dataset = open_images(folder, size)
        facts = measure_loading(
            folder, size=size, batch=batch, images=IMAGES, repeats=repeats, dataset=dataset
        )
        common = facts_of(dataset, name, (size, size), batch)
        note = f"{facts['workers']} processes, {facts['images']} images"
        yield Row(metric="decode-images/s", value=facts["raw"], note=note, **common)
        yield Row(metric="loader-images/s", value=facts["loader"], note=note, **common)
        note = "loader over bare read, decode and resize"
        yield Row(metric="loader-ratio", value=facts["ratio"], note=note, **common)
    starts = measure_start(dataset, batch=batch)
    for metric, key in (("start-seconds", "start"), ("start-far-seconds", "far")):
        note = f"two batches from sample {FAR if key == 'far' else 0:,}, data set open"
        yield Row(metric=metric, value=starts[key], note=note, **common)
    ratio = starts["far"] / starts["start"]
    yield Row(metric="start-ratio", value=ratio, note="far in over at 0", **common)


def open_images(folder: str | Path, size: int) -> Dataset:
    """The images in class folders or, where there are none, in the parquet shards below."""
    shards = sorted(Path(folder).rglob("*.parquet"))
    if shards:
        config: Any = ParquetConfig(train=tuple(map(str, shards)), size=size)
    else:
        config = FolderConfig(path=str(folder), size=size)
    return build(config).open("train")


def measure_loading(
    folder: str | Path,
    *,
    size: int = 256,
    workers: int | None = None,
    batch: int = 32,
    images: int = IMAGES,
    repeats: int = 3,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Images/s of a bare pool and of the loader over a folder's images, and their ratio.

    Args:
        folder: images in class folders or parquet; read in turn until there are `images`.
        size: side of the square they are cropped and resized to.
        workers: processes of each; None = the cores this process may use.
        batch: samples of a batch of the loader.
        repeats: of both, in turn; the medians count.
        dataset: the folder's, if it is open already.
    """
    cores = workers or len(os.sched_getaffinity(0))
    dataset = dataset or open_images(folder, size)
    steps = -(-images // batch)
    pairs = [_rates(dataset, steps, batch, size, cores, seed) for seed in range(repeats)]
    loaded, raw = zip(*pairs, strict=True)
    rates = statistics.median(raw), statistics.median(loaded)
    return {
        "raw": rates[0],
        "loader": rates[1],
        "ratio": rates[1] / rates[0],
        "workers": cores,
        "images": steps * batch,
        "size": size,
        "batch": batch,
        "repeats": [list(system) for system in zip(raw, loaded, strict=True)],
    }


def measure_start(dataset: Dataset, *, batch: int = 32, far: int = FAR) -> dict[str, float]:
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


def _rates(
    dataset: Dataset, steps: int, batch: int, size: int, workers: int, seed: int
) -> tuple[float, float]:
    """Images/s of the loader and of a bare pool that reads the same images in the same order."""
    loaded = loader_rate(dataset, Order(len(dataset), batch, seed), steps, workers)
    order, count = Order(len(dataset), 1, seed), steps * batch
    indices = [order.at(i)[1] for i in range(count)]
    done, raw = pool_rate(_decode_resize, dataset, indices, size, workers, each=32)
    if done != count:
        raise DataError(f"{done} of {count} images were decoded")
    return loaded, raw


def _decode_resize(dataset: Dataset, index: int, size: int) -> int:
    from PIL import Image

    image = Image.open(io.BytesIO(dataset.raw(index).data)).convert("RGB")
    return int(squared(image, size).size == (size, size))
