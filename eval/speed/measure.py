"""Speed of encode, decode, each part, a training step, sampling; the memory that they take; and
how near to the machine's own limit.

Every number is the median of some repeats after a warm-up, all in one run, so that ratios compare
like with like. FLOP are counted (2 for a multiply-add), not estimated; the limit is the rate of
large matrix products measured here. Nothing is judged.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from vistok.config import ConfigError
from vistok.core.errors import InputError
from vistok.data import to_device
from vistok.eval.context import decoder_settings
from vistok.eval.images import Views
from vistok.eval.provenance import provenance
from vistok.eval.report.files import check_replaceable
from vistok.eval.report.tables import plain
from vistok.eval.results.metrics import metric as metric_of
from vistok.eval.results.metrics import shown
from vistok.eval.results.rows import Results, Row
from vistok.eval.speed.clock import Clock, flops
from vistok.eval.speed.config import SpeedConfig
from vistok.eval.speed.evaluation import evaluation_rows
from vistok.eval.speed.loading import loading_rows
from vistok.eval.speed.lookup import lookup_rows
from vistok.eval.speed.parts import parts, peak_memory
from vistok.eval.speed.sampling import fast_rows, samples
from vistok.eval.speed.training_step import (
    NO_BF16,
    ConfigStep,
    TrainingStep,
    alone,
    config_file,
    sample_unit,
)
from vistok.eval.systems.runs import Run, System, open_data, resolve
from vistok.frozen import feature_network


def measure_speed(
    paths: Sequence[str | Path],
    asked: SpeedConfig,
    device: torch.device = torch.device("cpu"),
) -> Results:
    """Rows of images/s or clips/s, FLOP/s and their shares for every run and config file."""
    alone()
    if asked.report is not None:
        own = lambda path: _same_kind(path, set(map(str, paths)))
        check_replaceable(asked.report, own, asked.overwrite)
    if not (paths or asked.lookup or asked.loading):
        raise ConfigError("name a run, a config file, lookup=true or loading=[FOLDER]")
    files = [config_file(path) for path in paths]
    configs = [ConfigStep(file) for file in files if file is not None]
    folders = [path for path, file in zip(paths, files, strict=True) if file is None]
    batch, precision, repeats = asked.batch, asked.precision, asked.repeats
    if folders and (len(batch) > 1 or precision):
        raise ConfigError("precision and several sizes of batch are for config files, not runs")
    pairs = resolve(folders) if folders else []
    check_sampling(pairs, asked)
    datasets = [open_data(system.tokenizer, asked.data) for system in pairs]
    rows: list[Row] = []
    clock = Clock(device, repeats)
    with closing(clock):
        for (
            folder
        ) in asked.loading:  # first: its processes are forked from this one while it is small
            rows += loading_rows(folder, repeats)
        for system, dataset in zip(pairs, datasets, strict=True):
            size = (*batch, (system.tokenizer.config or {}).get("batch_size") or 32)[0]
            views = Views(dataset, min(size, len(dataset)), device=device)
            rows += _Speed(system, views, clock, asked).rows()
        for config in configs:
            rows += config.rows(clock, batch, precision)
        if asked.lookup:
            rows += lookup_rows(clock, asked.peer_gb)
    limits = {str(k).removeprefix("torch."): statistics.median(v) for k, v in clock.limits.items()}
    facts = {
        "measured": [str(path) for path in paths],
        "command": " ".join(["vistok eval", *sys.argv[1:]]),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "matrix_product_flops": limits,
        **provenance(),
    }
    runs = tuple(run.facts() for system in pairs for run in (system.tokenizer, *system.generators))
    return Results(rows=tuple(rows), runs=runs, facts=facts)


def _same_kind(path: Path, asked: set[str]) -> bool:
    """True for the numbers of an earlier measurement of no other runs and configs than these."""
    try:
        facts = Results.load(path).facts
    except InputError:
        return False
    return "matrix_product_flops" in facts and set(facts.get("measured", ())) <= asked


def check_sampling(systems: Sequence[System], asked: SpeedConfig) -> None:
    """ConfigError for sampling settings that no part of the systems has, before anything is
    timed."""
    decoders = [one.tokenizer.tokenizer for one in systems]
    samplers = [one for one in decoders if one.sampling is not None]
    generators = [run.generator for one in systems for run in one.generators]
    if asked.sampling and not generators:
        hint = "use decoder_sampling for the decoder" if samplers else "leave it out"
        raise ConfigError(f"sampling={asked.sampling}: no generator is measured; {hint}")
    if asked.decoder_sampling and not samplers:
        raise ConfigError(
            f"decoder_sampling={asked.decoder_sampling}: no decoder here samples; leave it out"
        )
    for generator in generators:
        generator.settings(asked.sampling)
    for tokenizer in samplers:
        decoder_settings(tokenizer, asked.decoder_sampling)


class _Speed:
    """All rows of a tokenizer and its generators."""

    def __init__(self, system: System, views: Views, clock: Clock, asked: SpeedConfig) -> None:
        self.system, self.views, self.clock, self.asked = system, views, clock, asked
        self.batch = to_device(next(iter(views.loader())), views.device)
        self.stamp = provenance()
        self.unit = sample_unit(self.batch.pixels)

    def rows(self) -> list[Row]:
        run, pixels = self.system.tokenizer, self.batch.pixels
        # The FLOP counter fails in inference mode, and on expanded parameters that want gradients.
        tokenizer = run.tokenizer.to(self.views.device).eval().requires_grad_(False)
        with torch.no_grad():
            # The text encoder is not timed: it is frozen, and keeps what it has seen.
            text = None if self.batch.text is None else tokenizer.condition_of(self.batch)
            named = {} if text is None else {"condition": "text"}
            self.text = text
            tokens = tokenizer.encode(pixels, condition=text)
            rows = self.timed(
                "encode", run, lambda: tokenizer.encode(pixels, condition=text), **named
            )
            rows += self.timed(
                "decode", run, lambda: self.decode(tokens), **named, **self.decoder_sampling
            )
            for name, function in parts(tokenizer, pixels, text).items():
                own = self.decoder_sampling if name == "decoder" else {}
                rows += self.timed(name, run, function, **named, **own)
        if self.asked.evaluation:
            place = {"device": self.views.device, "memory_format": torch.channels_last}
            network = feature_network(self.asked.features, self.asked.weights).to(**place)
            own = lambda metric, value, **rest: self.row(metric, value, run, **rest)
            rows += evaluation_rows(run, self.views, network, self.clock, own)
        rows += self.training(run)
        for generator in self.system.generators:
            rows += self.sampling(generator)
        for one in (run, *self.system.generators):
            rows += self.data_wait(one)
        return rows

    @property
    def decoder_sampling(self) -> dict[str, Any]:
        """Fields of rows that a decoder's sampling settings change; {} if it does not sample."""
        tokenizer = self.system.tokenizer.tokenizer
        if tokenizer.sampling is None:
            return {}
        settings = decoder_settings(tokenizer, self.asked.decoder_sampling)
        return {"sampling": {"decoder": settings}, "seed": 0}

    def decode(self, tokens: Any) -> torch.Tensor:
        """Pixels of tokens, sampled as it was asked for."""
        tokenizer = self.system.tokenizer.tokenizer
        changes = None if tokenizer.sampling is None else self.asked.decoder_sampling
        return tokenizer.decode(tokens, self.text, sampling=changes)

    def timed(
        self,
        name: str,
        run: Run,
        function: Callable[[], Any],
        precision: str = "fp32",
        **rest: Any,
    ) -> list[Row]:
        """Samples/s, peak memory; where there are matrix products: FLOP/s and its share of their
        rate in the same precision."""
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        # A compiled step is counted as it is without compilation.
        work = flops(getattr(function, "plain", function))
        timing = self.clock.time(function, kind, work)
        rate = len(self.batch.index) / timing.seconds
        each = f"{work / len(self.batch.index) / 1e9:.3g} GFLOP per {self.unit} in matrix products"
        rows = [self.row(f"{name}-{self.unit}s/s", rate, run, precision, note=each, **rest)]
        peak, how = peak_memory(function, self.views.device)
        held = None if peak is None else peak / 2**30
        rows.append(self.row(f"{name}-peak-GB", held, run, precision, note=how, **rest))
        if work:
            rows.append(self.row(f"{name}-FLOP/s", work / timing.seconds, run, precision, **rest))
            limit, side = timing.limit / 1e9, self.clock.side
            note = f"of {limit:.0f} GFLOP/s for {side}-wide matrix products"
            rows.append(self.row(f"{name}-share", timing.share, run, precision, note=note, **rest))
        return rows

    def training(self, run: Run) -> list[Row]:
        """Forward, backward and optimizer of the run's own task at this batch size."""
        if run.config is None:
            why = "no config.yaml: not a run folder"
            return [self.row(f"train-{self.unit}s/s", None, run, note=why)]
        step = TrainingStep(run.config, self.batch, str(run.folder / "config.yaml"))
        if step.imitated:
            return [self.row(f"train-{self.unit}s/s", None, run, step.precision, note=NO_BF16)]
        return self.timed("train", run, step, step.precision)

    def sampling(self, run: Run) -> list[Row]:
        model, count = run.generator.to(self.views.device).eval(), len(self.batch.index)
        settings = model.settings(self.asked.sampling)
        sample = samples(model, count, self.asked.sampling)
        common = {"sampling": {"generator": settings.model_dump(mode="json")}, "seed": 0}
        both = {**common["sampling"], **self.decoder_sampling.get("sampling", {})}
        named = {} if self.text is None else {"condition": "text"}
        with torch.no_grad():
            made = lambda: self.decode(sample())
            made.plain = lambda: self.decode(sample.plain())
            whole = lambda: self.timed("generate", run, made, sampling=both, seed=0, **named)
            if "cache" not in type(model.sampling).model_fields:
                return [*self.timed("sample", run, sample, **common), *whole()]
            cached = lambda: sample(cache=True)
            cached.plain = lambda: sample.plain(cache=True)
            rows = self.timed("sample-cached", run, cached, **common)
            slow = self.timed("sample-uncached", run, lambda: sample(cache=False), **common)
            end = whole()
        ratio = rows[0].value / slow[0].value
        note = f"{self.unit}s/s with over without keys and values kept"
        gain = self.row("sample-cache-gain", ratio, run, note=note, **common)
        own = lambda metric, value, **rest: self.row(metric, value, run, **rest)
        fast = fast_rows(model, self.clock, self.asked, count, own, self.unit)
        return [*rows, *slow, gain, *fast, *end]

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
            "weights": {run.kind: run.sha256},
            "count": len(self.batch.index),
            "length": run.spec.max_prefix,
            **self.views.protocol,
            **self.stamp,
        }
        return Row(
            metric=metric, value=value, run=run.name, precision=precision, **{**common, **rest}
        )


def speed_table(results: Results) -> str:
    """Table that the command line prints."""
    lines = []
    for row in results.rows:
        value = "not measured" if row.value is None else _form(row)
        lines.append([row.metric, row.run, value, str(row.count), row.precision, row.note])
    limits = results.facts["matrix_product_flops"]
    ends = ", ".join(f"{kind} {rate / 1e9:.1f} GFLOP/s" for kind, rate in limits.items())
    head = ["number", "run", "value", "batch", "precision", "note"]
    end = f"\n\nmatrix products on this machine: {ends}" if ends else ""
    return plain(head, lines) + end


def _form(row: Row) -> str:
    unit = metric_of(row.metric).unit
    return shown(row.value, row.metric).replace(",", "") + (unit and f" {unit}")
