"""`python -m eval reference`: feature statistics of a data set, with the protocol they followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from vistok.eval.images import Views, exact
from vistok.eval.reference.real import RealStats, StatsError
from vistok.eval.systems.runs import open_split, resolve
from vistok.frozen import feature_network
from vistok.runtime import distributed


def make_reference(
    data: Sequence[str],
    out: str | Path,
    *,
    split: Literal["train", "val"] = "train",
    features: str = "vistok-cnn",
    weights: str | None = None,
    limit: int | None = None,
    batch: int | None = None,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> RealStats:
    """Measure the images of a split and write `out`; every rank sees its share of them once.

    Args:
        data: the folder of a run (its data are meant), `key=value` words that change or name the
            data, or both.
        limit: only the first so many images, in the data's order.
    """
    out, device = Path(out), torch.device(device)
    if out.suffix not in (".safetensors", ".npz"):
        raise StatsError(f"--out {out}: expected a name that ends in .safetensors or .npz")
    folders = [word for word in data if "=" not in word]
    if len(folders) > 1:
        raise StatsError(f"{', '.join(folders)}: expected one run, or key=value words alone")
    run = resolve(folders)[0].tokenizer if folders else None
    dataset = open_split(run, [word for word in data if "=" in word], split)
    network = feature_network(features, weights)
    network = network.to(device=device, memory_format=torch.channels_last)
    batch = batch or (256 if device.type == "cuda" else 32)
    views = Views(dataset, batch, limit, device, workers)
    with exact():
        real = views.real(network)
    if distributed.rank() == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        real.save(out)
    return real
