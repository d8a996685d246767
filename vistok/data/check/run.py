"""Scan a data set before training: every file is read and decoded once, only hashes are kept.

Works on any `Dataset`: on the stored files where the kind has them (`Dataset.raw`), else on samples
without augmentation. What training would refuse (`BadSample`, a shard that cannot be opened)
is a finding here; so are label troubles, duplicates and constant images. What is merely odd, like
extreme shapes or modes that are converted, is reported and no finding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vistok.core.verbosity import quiet
from vistok.data.base import BadSample, Dataset
from vistok.data.check.clips import scan_clip
from vistok.data.check.findings import Findings, Scanned
from vistok.data.check.inputs import open_inputs
from vistok.data.decode import images
from vistok.data.kinds.video import VideoDataset
from vistok.data.loading import workers as worker
from vistok.data.loading.shared_memory import check_room, told_as_shortage

_BATCH = 16  # samples that a worker reads before it reports


def run_check(
    paths: Sequence[str],
    overrides: Sequence[str] = (),
    workers: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:
    """The report (`Findings.report`) on the data behind `paths`, see `open_inputs`.

    DataError or ConfigError if nothing there can be scanned.
    """
    from tqdm import tqdm

    sources = open_inputs(paths, overrides)
    findings = Findings(sources.troubles, [d.classes for _, d in sources.open], sources.left_out)
    total = sum(len(dataset) for _, dataset in sources.open)
    left = total if limit is None else min(limit, total)
    with tqdm(total=left, desc="check", unit="sample", disable=quiet()) as bar:
        for prefix, dataset in sources.open:
            count = min(left, len(dataset))
            left -= count
            for samples in scan(dataset, count, workers) if count else ():
                for sample in samples:
                    findings.add(sample, prefix, dataset.classes)
                bar.update(len(samples))
    return findings.report()


def scan_sample(dataset: Dataset, index: int) -> Scanned:
    """Read and decode one sample; never raises for what is wrong with it."""
    if isinstance(dataset, VideoDataset):
        return scan_clip(dataset, index)
    try:
        raw = dataset.raw(index)
    except NotImplementedError:
        return _as_seen(dataset, index)
    except BadSample as bad:
        return Scanned(bad.name, bad.reason)
    file = {"label": raw.label, "trouble": raw.trouble, "bytes": len(raw.data)}
    file["stored"] = _hash(raw.data)
    try:
        if not raw.is_image:
            return _as_seen(dataset, index, **file)
        image, header = images.inspect(raw.data, raw.name)
    except BadSample as bad:
        return Scanned(bad.name, bad.reason, **file)
    return Scanned(
        raw.name,
        **file,
        pixels=_hash(np.asarray(image)),
        size=image.size,
        format=header.format,
        mode=header.mode,
        orientation=header.orientation,
        constant=all(low == high for low, high in image.getextrema()),
    )


def scan(source: Dataset, count: int, workers: int = 0) -> Iterator[list[Scanned]]:
    """Facts of samples 0 .. count-1 in order, some at a time; `workers` processes, 0 = this one."""
    import torch
    from torch.utils.data import DataLoader

    check_room(0, workers)
    with told_as_shortage():
        yield from DataLoader(
            _ScanRows(source),
            batch_size=_BATCH,
            sampler=range(count),
            collate_fn=list,
            num_workers=workers,
            generator=torch.Generator(),
            worker_init_fn=worker.begin,
        )


class _ScanRows:
    """Index -> Scanned; torch's map-style data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Scanned:
        return scan_sample(self.dataset, index)


def _as_seen(dataset: Dataset, index: int, **file: Any) -> Scanned:
    """Facts of a sample without an image file, as evaluation would read it."""
    try:
        sample = dataset.sample(index)
    except BadSample as bad:
        return Scanned(bad.name, bad.reason, **file)
    file.setdefault("label", sample.label)
    if sample.pixels is None:
        return Scanned(sample.name, **file, pixels=_hash(sample.tokens.numpy()))
    pixels = sample.pixels  # [3, (T,) H, W]
    constant = all(bool(channel.min() == channel.max()) for channel in pixels)
    size = (pixels.shape[-1], pixels.shape[-2])
    return Scanned(sample.name, **file, pixels=_hash(pixels.numpy()), size=size, constant=constant)


def _hash(data: bytes | np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    if not isinstance(data, bytes):
        digest.update(f"{data.dtype} {data.shape}".encode())
        data = np.ascontiguousarray(data)
    digest.update(data)
    return digest.digest()
