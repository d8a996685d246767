"""Evaluate runs: every protocol on every tokenizer and its generators -> Results."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eval import pictures
from eval.bench import Bench
from eval.images import Views, exact
from eval.protocols import gfid, pfid, rfid
from eval.rows import Results, Row, provenance
from eval.runs import Pair, RunError, open_data, resolve
from vistok import distributed
from vistok.frozen import feature_network, perceptual_network


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    features: str = "vistok-cnn"
    weights: str | None = None
    perceptual: str = "vistok-cnn"
    data: tuple[str, ...] = ()
    limit: int | None = None
    batch: int | None = None  # None: 256 on a GPU, 32 on a CPU, whose caches hold no more
    samples: int | None = None  # None: as many as there are pictures
    pfid: pfid.Mode = "both"
    guidance: tuple[float, ...] = (1.0,)
    seed: int = 0
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def evaluate(paths: Sequence[str | Path], options: Options) -> Results:
    """Measure all runs. Mistakes in names, configs, data and weights show before any work."""
    pairs = resolve(paths)
    batch = options.batch or (256 if options.device.type == "cuda" else 32)
    datasets = [open_data(pair.tokenizer, options.data) for pair in pairs]
    networks = _networks(options)
    for pair in pairs:
        for generator in pair.generators:
            _check_pair(pair, generator)
    stamp = provenance()
    shared: dict[str, Views] = {}  # runs on the same pictures share their statistics
    rows: list[Row] = []
    runs, grids, codebooks, skipped, data = [], [], {}, [], {}
    for pair, dataset in zip(pairs, datasets, strict=True):
        views = Views(dataset, batch, options.limit, options.device, options.workers)
        # The whole record: one manifest may be cropped to several sizes.
        views = shared.setdefault(json.dumps(views.record, sort_keys=True, default=str), views)
        pair.tokenizer.tokenizer.to(options.device)
        bench = Bench(pair.tokenizer, views, *networks, options.seed, stamp)
        with exact():
            rows += _measure(bench, pair, options)
        if distributed.rank() == 0:
            grids += _grids(bench, pair, options)
        runs += [run.facts() for run in (pair.tokenizer, *pair.generators)]
        if "codebook" in bench.facts:
            codebooks[pair.tokenizer.name] = bench.facts["codebook"]
        skipped += bench.skipped
        data[pair.tokenizer.name] = views.record
    facts = {
        "command": shlex.join(["python", "-m", "eval", *sys.argv[1:]]),
        "pairs": {p.tokenizer.name: [g.name for g in p.generators] for p in pairs},
        "data": data,
        "features": {"name": networks[0].name, "sha256": networks[0].sha256},
        "world_size": distributed.world_size(),
        "device": str(options.device),
        "codebook": codebooks,
        "skipped": skipped,
        "pictures": grids,
        **stamp,
    }
    return Results(schema=1, rows=tuple(rows), runs=tuple(runs), facts=facts)


def _measure(bench: Bench, pair: Pair, options: Options) -> list[Row]:
    rows = rfid.run(bench)
    rows += pfid.run(bench, options.pfid)
    samples = len(bench.views) if options.samples is None else options.samples
    for generator in pair.generators:
        rows += gfid.run(bench, generator, options.guidance, samples)
    if not pair.generators:
        bench.skip("gFID", "no generator of this tokenizer's tokens among the runs")
    return rows


def _grids(bench: Bench, pair: Pair, options: Options) -> list[dict[str, Any]]:
    grids = [pictures.reconstructions(bench)]
    if bench.spec.vocab:
        grids.append(pictures.perturbed(bench))
    for generator in pair.generators:
        grids += [pictures.generated(bench, generator, scale) for scale in options.guidance]
    return grids


def _networks(options: Options) -> tuple[Any, Any]:
    # Channels last: the same numbers to rounding, 1.6 times as fast on CPUs.
    place = {"device": options.device, "memory_format": torch.channels_last}
    features = feature_network(options.features, options.weights).to(**place)
    if options.perceptual == "none":
        return features, None
    same = options.weights if options.perceptual == options.features else None
    return features, perceptual_network(options.perceptual, same).to(**place)


def _check_pair(pair: Pair, generator: Any) -> None:
    own, theirs = pair.tokenizer.spec, generator.spec
    if own.blocks != theirs.blocks or own.codebook_size != theirs.codebook_size:
        raise RunError(
            f"{generator.folder}: its tokens are {theirs.blocks} of {theirs.vocab}, those of "
            f"{pair.tokenizer.folder} are {own.blocks} of {own.vocab}; train it again"
        )
