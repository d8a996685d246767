"""The one loop over real images, and the one place where pixels become uint8.

Everything here gives the same numbers on one process and on many: each image is seen by exactly
one rank, and statistics are summed at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vistok.core.records import Batch
from vistok.core.verbosity import quiet
from vistok.data import EvalLoader, to_device
from vistok.data.batch import to_uint8
from vistok.data.order import eval_indices
from vistok.eval.provenance import provenance
from vistok.eval.reference.real import RealStats
from vistok.eval.results.rows import Network, Reference
from vistok.eval.resumable import Cache, digest
from vistok.frozen import FeatureNetwork
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats
from vistok.runtime import distributed

log = logging.getLogger(__name__)


def frame_numbers(index: Tensor, pixels: Tensor) -> Tensor:
    """Numbers [B] of samples -> those of their `frames` [B T]: frame t of clip i is i T + t."""
    if pixels.ndim == 4:
        return index
    count = pixels.shape[2]
    return (index[:, None] * count + torch.arange(count)).flatten()


def default_batch(device: torch.device) -> int:
    """Images at a time where none are named: a CPU's caches hold no more than 32."""
    return 256 if device.type == "cuda" else 32


def bar(total: int, title: str, unit: str = " images", done: int = 0) -> tqdm:
    """A progress bar with an ETA, on the first rank only; it leaves no line behind.

    `done`: what an earlier evaluation did, which says nothing about the speed of this one.
    """
    return tqdm(
        total=total,
        initial=min(done, total),
        desc=title,
        unit=unit,
        dynamic_ncols=True,
        leave=False,
        mininterval=0.5,
        disable=quiet() or distributed.rank() != 0,
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
    """The real images of one data set, with the statistics that several protocols share.

    `limit` takes the first images of the set; `reference` then counts those.
    """

    dataset: Any
    batch: int = 32
    limit: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    cache: Cache = field(default_factory=Cache)
    networks: tuple[FeatureNetwork, ...] = ()  # which a pass over the real images serves together
    record: dict[str, Any] = field(init=False)
    _real: dict[str, RealStats] = field(init=False, default_factory=dict)
    memo: dict[Any, Any] = field(init=False, default_factory=dict)
    """Results that a protocol computes once for all runs on these images, by a key of its own."""

    def __post_init__(self) -> None:
        self.record = self.dataset.record()

    def __len__(self) -> int:
        """Images over all ranks."""
        return len(self.dataset) if self.limit is None else min(self.limit, len(self.dataset))

    def loader(self, done: int = 0, only: Sequence[int] | None = None) -> EvalLoader:
        """This rank's batches (of `only` these images) but for the first `done` ones."""
        return EvalLoader(
            self.dataset,
            self.batch,
            workers=self.workers,
            rank=distributed.rank(),
            world=distributed.world_size(),
            limit=self.limit if only is None else None,
            start=done * self.batch * distributed.world_size(),  # batches are dealt out in turn
            only=only,
        )

    def batches(
        self, title: str, done: int = 0, only: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """This rank's batches on the device, pixels float32 in 0..1, behind a progress bar;
        without the first `done` ones. `only`: numbers of the images that are meant."""
        world = distributed.world_size()
        unit = " images" if getattr(self.dataset, "frames", None) is None else " clips"
        total = len(self) if only is None else len(only)
        with bar(total, title, unit, done * self.batch * world) as progress:
            for batch in self.loader(done, only):
                yield to_device(batch, self.device)
                progress.update(len(batch.index) * world)

    def pick(self, index: Sequence[int]) -> Tensor:
        """[n, 3, H, W] in 0..1 of single images, for the report's grids."""
        return self.chosen(index).pixels

    def chosen(self, index: Sequence[int]) -> Batch:
        """Single images with their texts, or clips with their frame rates, on the device, pixels
        float32 in 0..1."""
        samples = [self.dataset[i] for i in index]
        texts = tuple(s.text for s in samples) if self.dataset.texts else None
        clips = getattr(self.dataset, "frames", None) is not None
        fps = torch.tensor([s.fps for s in samples]) if clips else None
        pixels = torch.stack([s.pixels for s in samples])
        batch = Batch(torch.tensor(list(index)), pixels, text=texts, fps=fps)
        return to_device(batch, self.device)

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
        """Row fields that follow from the images."""
        return {
            "reference": self.reference,
            "crop": str(self.record.get("crop", "")),
            "filter": str(self.record.get("filter", "")),
            "size": self.sides,
        }

    @property
    def sides(self) -> tuple[int, ...] | None:
        """(H, W) of the images, (T, H, W) of clips; None if they have no common size."""
        if not self.dataset.size:
            return None
        clip = getattr(self.dataset, "frames", None)
        return (*((clip,) if clip else ()), *self.dataset.size)

    @property
    def frames(self) -> int:
        """Number of single images: frames of all clips."""
        clip = getattr(self.dataset, "frames", None)
        return len(self) * (clip or 1)

    @property
    def identity(self) -> dict[str, Any]:
        """Record of which images these are, wherever they lie: JSON, a part of cache keys."""
        where = {k: v for k, v in self.record.items() if k != "source"}
        return {**where, "name": data_name(self.record), "used": len(self)}

    def stats(self, network: FeatureNetwork) -> FeatureStats:
        """Feature statistics of the real images, over all ranks; computed once a network."""
        return self.real(network).stats

    def real(self, network: Any) -> RealStats:
        """Feature statistics of the real images with their protocol; kept in memory and in the
        cache folder. Of clips every frame is an image, unless the network is one of clips.

        Where they must be measured, `networks` that have not seen the images look at them too."""
        if _known_as(network) not in self._real:
            beside = () if _of_clips(network) else self.networks
            looking = {_known_as(one): one for one in (network, *beside)}
            new = [one for name, one in looking.items() if self._lacks(name, one)]
            if new:
                self._measure(new)
        return self._real[_known_as(network)]

    def _lacks(self, name: str, network: Any) -> bool:
        """True if the statistics are neither in memory nor, read now, in the cache folder."""
        if name not in self._real and not self.cache.fresh:
            found = self._kept(self._path(name), network)
            if found is not None:
                self._real[name] = found
        return name not in self._real

    def _key(self, name: str) -> str:
        return digest({"real": self.identity, "network": name, "device": self.device.type})

    def _path(self, name: str) -> Path | None:
        return self.cache.path(f"real-{self._key(name)[:32]}.safetensors")

    def _kept(self, path: Path | None, network: FeatureNetwork) -> RealStats | None:
        """Statistics of an earlier evaluation, if every rank can read them."""
        found = None
        if path is not None and path.is_file():
            try:
                found = RealStats.load(path)
            except ValueError as error:
                log.warning("%s; the real features are measured again", error)
            if found is not None and (
                found.network != network_of(network)
                or found.reference.model_copy(update={"described": ""})
                != self.reference.model_copy(update={"described": ""})
            ):
                log.warning("%s: of other images; the real features are measured again", path)
                found = None
        return None if distributed.agree(found is None) else found

    def _measure(self, networks: Sequence[Any]) -> None:
        """Look at all images through all of these networks, and keep what they saw."""
        names = [_known_as(one) for one in networks]
        mine = [FeatureStats(one.dim, self.device) for one in networks]
        keys = [self._key(name) for name in names]
        passes = self.cache.passes(keys[0] if len(keys) == 1 else digest(keys))
        one = passes.begin(mine, self.batch)
        for batch in self.batches("real features", one.done):
            seen = _seen(networks[0], batch.pixels)
            for network, stats in zip(networks, mine, strict=True):
                stats.update(network(seen))
            one.step(batch.index)
        one.finish(len(self))
        for name, network, stats in zip(names, networks, mine, strict=True):
            made = provenance()
            real = RealStats(stats.reduce(), network_of(network), **self.protocol, made=made)
            path = self._path(name)
            if path is not None and distributed.rank() == 0:
                real.save(path, exact=True)
            self._real[name] = real
        passes.clear()

    def remember(self, network: FeatureNetwork, stats: FeatureStats) -> None:
        """Keep statistics of these images that were computed together with other measures."""
        made = RealStats(stats, network_of(network), **self.protocol, made=provenance())
        self._real.setdefault(_known_as(network), made)


def _known_as(network: Any) -> str:
    """Key of a network's statistics; of clips, its preprocessing makes another network of it."""
    name = f"{network.name} {network.sha256}"
    return f"{name} {network.preprocess}" if _of_clips(network) else name


def _of_clips(network: Any) -> bool:
    """True for a network that looks at whole clips, not at single images."""
    return getattr(network, "media", "image") == "video"


def _seen(network: Any, pixels: Tensor) -> Tensor:
    """Pixels in 0..1 as a network looks at them: clips as they are, images in 8 bits."""
    return pixels if _of_clips(network) else to_uint8(frames(pixels))


def data_name(record: dict[str, Any]) -> str:
    """Name of a data set in numbers: the last folder of its source, else its kind (photos)."""
    source = str(record.get("source", ""))
    return Path(source).name if "/" in source else str(record["kind"])


def shares(count: int, batch: int) -> list[Tensor]:
    """This rank's batches of the sample numbers 0..count-1."""
    rows = eval_indices(count, batch, distributed.rank(), distributed.world_size())
    return [torch.tensor(row, dtype=torch.int64) for row in rows]


def network_of(network: Any) -> Network:
    return Network(name=network.name, sha256=network.sha256, preprocess=network.preprocess)
