"""How fast: encode, decode, a training step, sampling; and how near to the machine's own limit.

Every number is the median of some repeats after a warm-up, all in one run, so that ratios compare
like with like. FLOP are counted (2 for a multiply-add), not estimated; the limit is the rate of
large matrix products measured here. Nothing is judged.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from eval.images import Views
from eval.rows import Decode, Results, Row, provenance
from eval.runs import Pair, Run, class_names, open_data, resolve
from eval.tables import plain
from vistok import distributed
from vistok.config import validate
from vistok.data import to_device
from vistok.dice import Progress, Rng
from vistok.records import Batch
from vistok.registry import build

_SIDE = 2048  # of the matrices whose product is the machine's limit


def measure_speed(
    paths: Sequence[str | Path],
    *,
    batch: int | None = None,
    repeats: int = 5,
    data: Sequence[str] = (),
    device: torch.device = torch.device("cpu"),
) -> Results:
    """Rows of images/s, FLOP/s and their shares for every run."""
    if distributed.world_size() > 1:
        raise ValueError("speed measures one process; start it without a launcher")
    pairs = resolve(paths)
    datasets = [open_data(pair.tokenizer, data) for pair in pairs]
    rows: list[Row] = []
    clock = Clock(device, repeats)
    limits = {kind: clock.products(kind) for kind in (torch.float32, torch.bfloat16)}
    for pair, dataset in zip(pairs, datasets, strict=True):
        size = batch or (pair.tokenizer.config or {}).get("batch_size") or 32
        views = Views(dataset, min(size, len(dataset)), device=device)
        rows += _Speed(pair, views, clock, limits).rows()
    clock.close()
    facts = {
        "command": " ".join(["python -m eval", *sys.argv[1:]]),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "matrix_product_flops": {str(k).removeprefix("torch."): v for k, v in limits.items()},
        **provenance(),
    }
    runs = tuple(run.facts() for pair in pairs for run in (pair.tokenizer, *pair.generators))
    return Results(schema=1, rows=tuple(rows), runs=runs, facts=facts)


class Clock:
    """Times functions: once to warm up, then the median of some repeats."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.bar = tqdm(desc="speed", unit="call", leave=False, dynamic_ncols=True)

    def seconds(self, function: Callable[[], Any]) -> float:
        times = []
        for turn in range(self.repeats + 1):
            started = time.perf_counter()
            function()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if turn:
                times.append(time.perf_counter() - started)
            self.bar.update()
        return statistics.median(times)

    @property
    def side(self) -> int:
        """Of the matrices whose product is the machine's measure."""
        return _SIDE * (4 if self.device.type == "cuda" else 1)

    def products(self, kind: torch.dtype) -> float:
        """FLOP/s of a square matrix product of this type."""
        side = self.side
        a = torch.randn(side, side, device=self.device).to(kind)
        with torch.inference_mode():
            return 2 * side**3 / self.seconds(lambda: a @ a)

    def close(self) -> None:
        self.bar.close()


class _Speed:
    """All rows of a tokenizer and its generators."""

    def __init__(
        self, pair: Pair, views: Views, clock: Clock, limits: dict[torch.dtype, float]
    ) -> None:
        self.pair, self.views, self.clock, self.limits = pair, views, clock, limits
        self.batch = to_device(next(iter(views.loader())), views.device)
        self.stamp = provenance()

    def rows(self) -> list[Row]:
        run, pixels = self.pair.tokenizer, self.batch.pixels
        # The FLOP counter fails in inference mode, and on expanded parameters that want gradients.
        tokenizer = run.tokenizer.to(self.views.device).eval().requires_grad_(False)
        with torch.no_grad():
            tokens = tokenizer.encode(pixels)
            rows = self.timed("encode", run, lambda: tokenizer.encode(pixels))
            rows += self.timed("decode", run, lambda: tokenizer.decode(tokens))
        rows += self.training(run)
        for generator in self.pair.generators:
            rows += self.sampling(generator)
        for one in (run, *self.pair.generators):
            rows += self.data_wait(one)
        return rows

    def timed(
        self,
        name: str,
        run: Run,
        function: Callable[[], Any],
        precision: str = "fp32",
        count: bool = True,
        **rest: Any,
    ) -> list[Row]:
        """images/s; FLOP/s and its share of the matrix-product rate of the same precision."""
        seconds, images = self.clock.seconds(function), len(self.batch.index)
        rows = [self.row(f"{name}-images/s", images / seconds, run, precision, **rest)]
        if count:
            rate = flops(function) / seconds
            limit = self.limits[torch.bfloat16 if precision == "bf16" else torch.float32]
            rows.append(self.row(f"{name}-FLOP/s", rate, run, precision, **rest))
            note = f"of {limit / 1e9:.0f} GFLOP/s for {self.clock.side}-wide matrix products"
            share = self.row(f"{name}-share", rate / limit, run, precision, note=note, **rest)
            rows.append(share)
        return rows

    def training(self, run: Run) -> list[Row]:
        """Forward, backward and optimiser of the run's own task at this batch size."""
        if run.config is None:
            return [self.row("train-images/s", None, run, note="no config.yaml: not a run folder")]
        step, precision = training_step(run, self.batch)
        return self.timed("train", run, step, precision)

    def sampling(self, run: Run) -> list[Row]:
        model, images = run.generator.to(self.views.device).eval(), len(self.batch.index)
        index, count = torch.arange(images, device=self.views.device), len(class_names(model))
        labels = index % count if count else None
        decode = Decode(guidance=1.0, seed=0, steps=run.spec.length)
        sample = lambda cache: model.sample(labels, index=index, cache=cache)
        with torch.no_grad():
            rest = {"count": False, "decode": decode}
            rows = self.timed("sample-cached", run, lambda: sample(True), **rest)
            rows += self.timed("sample-uncached", run, lambda: sample(False), **rest)
        ratio = rows[0].value / rows[1].value
        note = "images/s with over without keys and values kept"
        return [*rows, self.row("sample-cache-gain", ratio, run, note=note, decode=decode)]

    def data_wait(self, run: Run) -> list[Row]:
        """Share of training time spent waiting for data, from the run's metrics.jsonl."""
        waits = [line["data_wait"] for line in run.history if "data_wait" in line]
        if not waits:
            return []
        note = f"median of {len(waits)} lines of metrics.jsonl"
        return [self.row("data-wait", statistics.median(waits), run, note=note)]

    def row(
        self, metric: str, value: float | None, run: Run, precision: str = "fp32", **rest: Any
    ) -> Row:
        common = {
            "weights": run.sha256,
            "samples": len(self.batch.index),
            "length": run.spec.steps,
            **self.views.protocol,
            **self.stamp,
        }
        return Row(
            metric=metric, value=value, run=run.name, precision=precision, **{**common, **rest}
        )


def training_step(run: Run, batch: Batch) -> tuple[Callable[[], None], str]:
    """(a function that does one whole optimiser step, the precision it runs in)."""
    from train.config import TrainConfig
    from train.optim import make_optimizers

    config = validate(TrainConfig, run.config, str(run.folder / "config.yaml"))
    data = None if config.data is None else build(config.data).open("train")
    task, device = build(config.task, data), batch.pixels.device
    for module in [*task.modules.values(), *getattr(task, "losses", ())]:
        module.to(device).train()
    optimizers = {
        phase.module: make_optimizers(
            config.optimizer, task.modules[phase.module], phase.lr_factors
        )
        for phase in task.phases
    }
    progress = Progress(config.steps, config.steps)  # the last step: every loss is switched on
    rng = Rng(config.seed, "step", config.steps)
    task.prepare(batch, rng)
    draws = task.draw(batch.index, config.seed, progress).to(device)
    cast = config.precision == "bf16"

    def step() -> None:
        for phase in task.phases:
            with torch.autocast(device.type, torch.bfloat16) if cast else nullcontext():
                loss: Tensor = task.step(phase, batch, draws, progress)["loss"]
            loss.backward()
            for optimizer in optimizers[phase.module]:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        task.after_step(rng, progress)

    return step, config.precision


def flops(function: Callable[[], Any]) -> int:
    """FLOP of one call. Attention is counted in its plain form: fused CPU kernels have no count."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def speed_table(results: Results) -> str:
    """What the command line prints."""
    lines = []
    for row in results.rows:
        value = "not measured" if row.value is None else _form(row)
        lines.append([row.metric, row.run, value, str(row.samples), row.precision, row.note])
    limits = results.facts["matrix_product_flops"]
    ends = ", ".join(f"{kind} {rate / 1e9:.1f} GFLOP/s" for kind, rate in limits.items())
    head = ["number", "run", "value", "batch", "precision", "note"]
    return f"{plain(head, lines)}\n\nmatrix products on this machine: {ends}"


def _form(row: Row) -> str:
    if row.metric.endswith("FLOP/s"):
        return f"{row.value / 1e9:.2f} G"
    if row.metric.endswith("share") or row.metric == "data-wait":
        return f"{100 * row.value:.1f} %"
    return f"{row.value:.1f}"
