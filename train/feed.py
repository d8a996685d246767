"""The loader of a run: by index, or lane by lane where data can only be read front to back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vistok.data.loading.loader import TrainLoader
from vistok.data.loading.stream import Stream
from vistok.data.loading.stream_loader import StreamLoader

if TYPE_CHECKING:
    from vistok.train.loop import Loop

Loader = TrainLoader | StreamLoader


def make_loader(loop: Loop, stop: int, workers: int) -> Loader:
    """Batches from the loop's step up to `stop`, this rank's rows of each."""
    config, accelerator = loop.config, loop.accelerator
    given = {
        "start_step": loop.step,
        "steps": stop,
        "workers": workers,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "folder": loop.folder,
        "max_bad_share": config.max_bad_share,
        "pin_memory": loop.device.type == "cuda",
    }
    if isinstance(loop.train_set, Stream):
        given |= loop.stream or {}
        return StreamLoader(loop.train_set, config.batch_size, config.seed, **given)
    return TrainLoader(loop.train_set, loop.order, **given)
