"""The loader of a run: by index, or lane by lane where data can only be read front to back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from vistok.data.loading.loader import TrainLoader
from vistok.data.loading.shared_memory import AHEAD, SPARE, batch_bytes, check_room
from vistok.data.loading.stream import Stream
from vistok.data.loading.stream_loader import StreamLoader
from vistok.data.order import Order
from vistok.train.config import TrainConfig
from vistok.train.state import RunState

Loader = TrainLoader | StreamLoader


def make_loader(
    config: TrainConfig,
    data: Any,
    order: Order,
    accelerator: Accelerator,
    folder: Path,
    state: RunState,
    steps: int | None = None,
    workers: int | None = None,
) -> Loader:
    """Batches from the run's step on, this process's rows of each.

    Args:
        steps: where to end, workers: loader processes; None = as the config says.
    """
    given = {
        "start_step": state.step,
        "steps": config.steps if steps is None else steps,
        "workers": config.workers if workers is None else workers,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "folder": folder,
        "max_bad_share": config.max_bad_share,
        "pin_memory": accelerator.device.type == "cuda",
    }
    if isinstance(data, Stream):
        given |= state.stream or {}
        return StreamLoader(data, config.batch_size, config.seed, **given)
    return TrainLoader(data, order, **given)


def check_shared_memory(
    config: TrainConfig, train_set: Any, val_set: Any, accelerator: Accelerator
) -> None:
    """DataError unless shared memory holds what the workers of all processes on this machine need.

    The workers of training stay while others validate, so both count, before the first step.
    """
    world = accelerator.num_processes
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    needed = batch_bytes(train_set, config.batch_size // world)
    needed += batch_bytes(val_set, config.validate_batch)
    check_room(here * config.workers * (AHEAD + SPARE) * needed, config.workers)


def stream_positions(loader: Loader) -> dict[str, Any] | None:
    """Lanes and positions of a stream over all processes, for a checkpoint; None = no stream."""
    if not isinstance(loader, StreamLoader):
        return None
    parts = gather_object([loader.positions])
    positions = {lane: place for part in parts for lane, place in part.items()}
    return {"lanes": loader.lanes, "positions": positions}
