"""`vistok eval reference`: feature statistics of a data set, with the protocol they followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from vistok.config import Config
from vistok.eval.images import Views, default_batch, exact
from vistok.eval.reference.real import RealStats, StatsError
from vistok.eval.report.files import check_replaceable
from vistok.eval.systems.runs import open_split, resolve
from vistok.frozen import feature_network
from vistok.runtime import distributed


class ReferenceConfig(Config):
    """Config of reference statistics."""

    out: str
    """File to write: .safetensors or .npz."""
    overwrite: bool = False
    """true: a file there is replaced even if it holds something else than reference statistics."""
    split: Literal["train", "val"] = "train"
    """Split of the data."""
    data: dict[str, Any] = {}
    """Keys of the data config, laid over those of the run, or the data themselves."""
    features: str = "vistok-cnn"
    """Feature network: any that an evaluation's `features` takes, like vistok-cnn or inception."""
    weights: str | None = None
    """Weight file of that network, if it is not in the usual place."""
    limit: int | None = Field(default=None, ge=2)
    """Use only the first so many images, in the data's order; null = all."""
    batch: int | None = Field(default=None, ge=1)
    """Images at a time; null = 32, on a GPU 256."""
    workers: int = Field(default=0, ge=0)
    """Processes that read images."""
    device: str | None = None
    """Device: cpu, cuda, ...; null = a GPU if there is one."""


def make_reference(
    runs: Sequence[str], config: ReferenceConfig, device: torch.device | str = "cpu"
) -> RealStats:
    """Measure the images of a split and write `config.out`; every rank sees its share of them.

    Args:
        runs: the folder of a run, whose data are meant, or nothing.
    """
    out, device = Path(config.out), torch.device(device)
    if out.suffix not in (".safetensors", ".npz"):
        raise StatsError(f"out={out}: expected a name that ends in .safetensors or .npz")
    check_replaceable(out, _is_reference, config.overwrite)
    if len(runs) > 1:
        raise StatsError(f"{', '.join(runs)}: expected one run, or data.kind=... alone")
    run = resolve(runs)[0].tokenizer if runs else None
    dataset = open_split(run, config.data, config.split)
    network = feature_network(config.features, config.weights)
    network = network.to(device=device, memory_format=torch.channels_last)
    batch = config.batch or default_batch(device)
    views = Views(dataset, batch, config.limit, device, config.workers)
    with exact():
        real = views.real(network)
    if distributed.rank() == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        real.save(out)
    return real


def _is_reference(path: Path) -> bool:
    """True for statistics that this command wrote, which say how they were made."""
    try:
        return bool(RealStats.load(path).made)
    except StatsError:
        return False
