"""The one loop over real pictures, and the one place where pixels become uint8.

Everything here gives the same numbers on one process and on many: each picture is seen by exactly
one rank, and statistics are summed at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eval.rows import Network, Reference
from vistok import distributed
from vistok.data import EvalLoader, to_device
from vistok.data.order import eval_indices
from vistok.frozen import FeatureNetwork
from vistok.metrics import FeatureStats
from vistok.records import Batch


def to_uint8(pixels: Tensor) -> Tensor:
    """[..., H, W] in 0..1 -> uint8, halves up: trunc(255 x + 0.5), pFID-v1's rule.

    Pixels that came from uint8 return to exactly the same numbers.
    """
    return (pixels.float() * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def bar(total: int, title: str, unit: str = "img") -> tqdm:
    """A progress bar with an ETA, on the first rank only; it leaves no line behind."""
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        dynamic_ncols=True,
        leave=False,
        mininterval=0.5,
        disable=distributed.rank() != 0,
    )


@contextmanager
def exact() -> Iterator[None]:
    """No gradients, and full fp32 products on GPUs (TF32 off)."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = False
    try:
        with torch.inference_mode():
            yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


@dataclass
class Views:
    """The real pictures of one data set, with the statistics that several protocols share.

    `limit` takes the first pictures of the set; `reference` then counts those.
    """

    dataset: Any
    batch: int = 32
    limit: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    record: dict[str, Any] = field(init=False)
    memo: dict[Any, Any] = field(init=False, default_factory=dict)
    """What a protocol computed once for all runs on these pictures, under a key of its own."""
    _stats: dict[str, FeatureStats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.record = self.dataset.record()

    def __len__(self) -> int:
        """Pictures over all ranks."""
        return len(self.dataset) if self.limit is None else min(self.limit, len(self.dataset))

    def loader(self) -> EvalLoader:
        return EvalLoader(
            self.dataset,
            self.batch,
            workers=self.workers,
            rank=distributed.rank(),
            world=distributed.world_size(),
            limit=self.limit,
        )

    def batches(self, title: str) -> Iterator[Batch]:
        """This rank's batches on the device, pixels float32 in 0..1, behind a progress bar."""
        with bar(len(self), title) as progress:
            for batch in self.loader():
                yield to_device(batch, self.device)
                progress.update(len(batch.index) * distributed.world_size())

    def pick(self, index: Sequence[int]) -> Tensor:
        """[n, 3, H, W] in 0..1 of single pictures, for the report's grids."""
        return torch.stack([self.dataset[i].pixels for i in index]).to(self.device).float() / 255

    @property
    def reference(self) -> Reference:
        return Reference(
            name=data_name(self.record),
            split=str(self.record.get("split", "val")),
            manifest=str(self.record["manifest"]),
            count=len(self),
            described=str(self.record.get("source", "")),
        )

    @property
    def protocol(self) -> dict[str, Any]:
        """Row fields that follow from the pictures."""
        return {
            "reference": self.reference,
            "crop": str(self.record.get("crop", "")),
            "filter": str(self.record.get("filter", "")),
            "size": tuple(self.dataset.size) if self.dataset.size else None,
        }

    def stats(self, network: FeatureNetwork) -> FeatureStats:
        """Feature statistics of the real pictures, over all ranks; computed once a network."""
        key = f"{network.name} {network.sha256}"
        if key not in self._stats:
            mine = FeatureStats(network.dim, self.device)
            for batch in self.batches("real features"):
                mine.update(network(to_uint8(batch.pixels)))
            self._stats[key] = mine.reduce()
        return self._stats[key]


def data_name(record: dict[str, Any]) -> str:
    """What numbers call a data set: the last folder of its source, else its kind (photos)."""
    source = str(record.get("source", ""))
    return Path(source).name if "/" in source else str(record["kind"])


def shares(count: int, batch: int) -> list[Tensor]:
    """This rank's batches of the sample numbers 0..count-1."""
    rows = eval_indices(count, batch, distributed.rank(), distributed.world_size())
    return [torch.tensor(row, dtype=torch.int64) for row in rows]


def network_of(network: Any) -> Network:
    return Network(name=network.name, sha256=network.sha256)
