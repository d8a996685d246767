"""Parts that the rates of loading images and clips share: timed loaders and bare pools."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vistok.data import Dataset, Order, TrainLoader
from vistok.data.loading.workers import end_with_parent
from vistok.eval.provenance import provenance
from vistok.eval.results.rows import Reference

if TYPE_CHECKING:
    from PIL.Image import Image

Work = Callable[[Dataset, int, int], int]  # (data, index, side wanted) -> images decoded


def loader_rate(dataset: Dataset, order: Order, steps: int, workers: int) -> float:
    """Samples/s after the first round of batches, which pays for starting the workers."""
    skip = 2 * workers
    loader = TrainLoader(dataset, order, steps=steps + skip, workers=workers, max_bad_share=0.0)
    for number, _ in enumerate(loader, 1):
        if number == skip:
            began = time.perf_counter()
    return steps * order.batch_size / (time.perf_counter() - began)


def pool_rate(
    work: Work, dataset: Dataset, indices: Sequence[int], side: int, workers: int, each: int
) -> tuple[int, float]:
    """(images decoded, images/s) of a bare pool of processes that does `work` on samples.

    Args:
        side: pixels of the square that is wanted. each: samples that a process takes at a time.
    """
    # Not by fork: a process that has threads (bars, decoders) can leave a lock behind in its child.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with context.Pool(workers, initializer=_begin, initargs=(work, dataset, side)) as pool:
        pool.map(_one, indices[: 4 * workers], chunksize=1)
        began = time.perf_counter()
        done = sum(pool.imap_unordered(_one, indices, chunksize=each))
        return done, done / (time.perf_counter() - began)


def facts_of(dataset: Dataset, name: str, sides: tuple[int, ...], batch: int) -> dict[str, Any]:
    """What all rows of a loading benchmark say: run, data, sides of a sample, machine."""
    record = dataset.record()
    return {
        "run": f"{name} {sides[-1]}",
        "reference": Reference(
            name=name, split="train", manifest=record["manifest"], count=len(dataset)
        ),
        "count": batch,
        "crop": record["crop"],
        "filter": record["filter"],
        "size": sides,
        **provenance(),
    }


def squared(image: Image, side: int) -> Image:
    """The center square of an image, resized to `side` pixels if it has others."""
    from PIL.Image import Resampling

    own = min(image.size)
    left, top = (image.width - own) // 2, (image.height - own) // 2
    image = image.crop((left, top, left + own, top + own))
    return image if own == side else image.resize((side, side), Resampling.BICUBIC)


_job: tuple[Work, Dataset, int]  # of a process of the pool


def _begin(work: Work, dataset: Dataset, side: int) -> None:
    global _job
    _job = work, dataset, side
    end_with_parent()


def _one(index: int) -> int:
    work, dataset, side = _job
    return work(dataset, index, side)
