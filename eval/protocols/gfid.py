"""gFID: Fréchet distance of sampled and decoded pictures to the real ones.

The reference is the set of real pictures that the tokenizer is evaluated on (the validation
pictures), not training statistics: every row says so. Samples are spread evenly over the classes,
and their dice are keyed by sample number, so batches and ranks cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eval.bench import Bench
from eval.images import bar, shares, to_uint8
from eval.jobs import Job
from eval.options import Options
from eval.rows import Decode, Row
from eval.runs import Pair, Run, class_names, untrained
from vistok import distributed
from vistok.metrics import FeatureStats
from vistok.tokens import Tokens


def jobs(pair: Pair, options: Options) -> list[Job]:
    """One for each generator; one that says what is missing where there is none."""
    settings = {"guidance": list(options.guidance), "samples": options.samples}
    work = lambda generator: (
        lambda bench: run(bench, generator, options.guidance, options.samples or len(bench.views))
    )
    if not pair.generators:
        return [Job("gfid", _nothing)]
    return [Job("gfid", work(one), settings, one) for one in pair.generators]


def _nothing(bench: Bench) -> list[Row]:
    bench.skip("gFID", "no generator of this tokenizer's tokens among the runs")
    return []


def run(bench: Bench, generator: Run, guidance: Sequence[float], samples: int) -> list[Row]:
    """gFID at each guidance, of an untrained twin, and at shorter prefixes (first guidance)."""
    model = generator.generator.to(bench.device).eval()
    spec, rows = bench.spec, []
    for scale in guidance:
        rows.append(_row(bench, generator, "gFID", model, spec.steps, scale, samples))
    for length in spec.sweep[:-1]:
        rows.append(_row(bench, generator, "gFID", model, length, guidance[0], samples))
    twin = untrained(model).to(bench.device)
    note = "baseline: the same generator with fresh weights (seed 0)"
    rows.append(_row(bench, generator, "gFID-untrained", twin, spec.steps, 1.0, samples, note=note))
    return rows


def labels_of(model: Any, index: Tensor) -> Tensor | None:
    """Classes in turn; None for a generator without classes."""
    count = len(class_names(model))
    return index % count if count else None


def sample(bench: Bench, model: Any, index: Tensor, length: int, guidance: float) -> Tokens:
    """Token sequences of the sample numbers `index` [B], stopped at `length`."""
    index = index.to(bench.device)
    whole = length == bench.spec.steps
    return model.sample(
        labels_of(model, index),
        None if whole else length,
        seed=bench.seed,
        index=index,
        guidance=guidance,
    )


def sample_stats(
    bench: Bench, model: Any, length: int, guidance: float, samples: int, title: str
) -> FeatureStats:
    """Feature statistics of `samples` decoded samples, over all ranks."""
    stats = bench.new_stats()
    with bar(samples, title) as progress:
        for index in shares(samples, bench.batch):
            tokens = sample(bench, model, index, length, guidance)
            stats.update(bench.features(to_uint8(bench.tokenizer.decode(tokens))))
            progress.update(len(index) * distributed.world_size())
    return stats.reduce()


def _row(
    bench: Bench,
    generator: Run,
    metric: str,
    model: Any,
    length: int,
    guidance: float,
    samples: int,
    note: str = "",
) -> Row:
    title = f"{generator.name}: {metric}, guidance {guidance:g}, length {length}"
    stats = sample_stats(bench, model, length, guidance, samples, title)
    where = (
        f"tokens of {bench.run.name}; reference: the {bench.views.reference.split} pictures, not "
        "training statistics"
    )
    return bench.frechet_row(
        metric,
        stats,
        run=generator.name,
        weights=generator.sha256,
        length=length,
        decode=Decode(
            guidance=guidance,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            seed=bench.seed,
            steps=bench.spec.positions(length),
        ),
        condition="class" if class_names(model) else "none",
        note=f"{note}; {where}" if note else where,
    )


def pictures(
    bench: Bench, model: Any, classes: Sequence[int], each: int, guidance: float
) -> Tensor:
    """[classes, each, 3, H, W] uint8: the first samples of some classes, those of the statistics.

    `classes` are labels; [0] for a generator without classes.
    """
    count = max(1, len(class_names(model)))
    index = torch.tensor(classes)[:, None] + count * torch.arange(each)  # [classes, each]
    painted = [
        to_uint8(bench.tokenizer.decode(sample(bench, model, part, bench.spec.steps, guidance)))
        for part in index.flatten().split(bench.batch)
    ]
    return torch.cat(painted).cpu().unflatten(0, index.shape)
