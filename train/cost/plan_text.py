"""A plan as text for a terminal: aligned, one fact a line, nothing wider than the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel

from vistok.config.yaml_text import dump_yaml
from vistok.train.cost.planned import JobPlan, Part, Plan
from vistok.train.monitoring.text import GAP, amount, count, fact, fit, size
from vistok.train.tasks.base import Facts

_CUTS = {
    "none": "",
    "token": ", or any prefix",
    "block": ", or its first blocks",
    "per_block": ", or a prefix of each block",
}


def plan_text(plan: Plan | JobPlan, width: int = 80) -> str:
    """The text that `--dry-run` prints below the config."""
    blocks = _job(plan) if isinstance(plan, JobPlan) else _run(plan)
    lines = [line for block in blocks for line in (*block, "")]
    lines += [fact("notes" if number == 0 else "", note) for number, note in enumerate(plan.notes)]
    return "\n".join(fit(lines, width)).rstrip() + "\n"


def config_text(config: BaseModel, width: int = 80) -> str:
    """The resolved config as YAML that reads back equal, small groups on one line."""
    tree = config.model_dump(mode="json")
    return dump_yaml(tree, default_flow_style=None, width=width - 20)


def _run(plan: Plan) -> Iterable[list[str]]:
    yield _networks(plan.parts, _unit(plan))
    yield [fact(name, value) for name, value in _tokens(plan)]
    yield [fact(name, value) for name, value in _work(plan)]
    yield [fact(name, value) for name, value in _memory(plan)]
    yield [fact(name, value) for name, value in _schedule(plan)]


def _networks(parts: tuple[Part, ...], unit: str) -> list[str]:
    head = ("part", "trained", "frozen", f"forward FLOP/{unit}")
    rows = [(p.name, count(p.trained), count(p.frozen), amount(p.flops)) for p in parts]
    if len(parts) > 1:
        trained, frozen = (sum(getattr(p, kind) for p in parts) for kind in ("trained", "frozen"))
        rows.append(("all", count(trained), count(frozen), amount(sum(p.flops for p in parts))))
    table = [head, *rows]
    wide = [max(len(row[i]) for row in table) for i in range(len(head))]
    wide[0] = max(wide[0], GAP)
    return [
        "  ".join(
            cell.ljust(wide[i]) if i == 0 else cell.rjust(wide[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]


def _tokens(plan: Plan) -> Iterable[tuple[str, str]]:
    unit = _unit(plan)
    if plan.sides is not None:
        yield unit, " x ".join(map(str, plan.sides))
    if plan.spec is None:
        return
    spec = plan.spec
    yield f"tokens/{unit}", f"{spec.length:,}{_CUTS[spec.prefix]}"
    if not spec.vocab:
        yield "vocabulary", f"continuous, width {spec.dim}"
        return
    yield "vocabulary", vocabulary(spec.vocab)
    yield f"bits/{unit}", f"{spec.bits:,}"
    if plan.sides is not None:
        yield "bpp", f"{spec.bits / math.prod(plan.sides):.4f}"


def _unit(plan: Plan | JobPlan) -> str:
    return Facts(sides=plan.sides).unit


def vocabulary(vocab: tuple[int, ...]) -> str:
    """(2, 2, 2) -> "2^3"; (64, 4096) -> "64 x 4,096"."""
    if len(vocab) > 1 and len(set(vocab)) == 1:
        return f"{vocab[0]:,}^{len(vocab)}"
    return " x ".join(f"{size:,}" for size in vocab)


def _work(plan: Plan) -> Iterable[tuple[str, str]]:
    unit = _unit(plan)
    yield "forward", f"{amount(plan.forward)}FLOP/{unit}, {plan.model} alone"
    for number, stage in enumerate(plan.stages):
        when = f"from step {stage.start:,}" if number else "forward + backward, losses included"
        yield "" if number else "whole step", f"{amount(stage.flops)}FLOP/{unit} {when}"
    if plan.optimizer_flops:
        share = plan.optimizer_flops / (plan.stages[-1].flops * plan.schedule.batch)
        yield "optimizer", f"{amount(plan.optimizer_flops)}FLOP/step, {share:.1%} on top"
    yield "whole run", f"{amount(plan.flops)}FLOP"


def _memory(plan: Plan) -> Iterable[tuple[str, str]]:
    memory, micro = plan.memory, plan.schedule.micro
    rows = {
        "weights": (memory.weights, ""),
        "gradients": (memory.gradients, "and buckets" if plan.schedule.world > 1 else ""),
        "optimizer": (memory.optimizer, ""),
        "EMA": (memory.ema, ""),
        "activations": (memory.activations, f"{micro:,} x {size(memory.activations / micro)}"),
        "all": (memory.total, "per process, an estimate"),
    }
    if memory.activations_plain > 1.05 * memory.activations:
        extra = memory.activations_plain - memory.activations
        rows["on CPUs"] = (memory.total + extra, "bf16 attention is not fused there")
    for number, (name, (value, note)) in enumerate(rows.items()):
        if value:
            line = f"{name:<12}{size(value):>9}  {note}"
            yield "" if number else "memory", line


def _schedule(plan: Plan) -> Iterable[tuple[str, str]]:
    s = plan.schedule
    yield "samples", f"{s.samples:,} = {s.steps:,} steps x {s.batch:,}"
    if s.epochs is None:
        yield "epochs", "unknown"
    else:
        steps = s.count / s.batch
        yield "epochs", f"{s.epochs:,.4g} of {s.count:,} samples, {steps:,.6g} steps each"
    split = f"{s.batch:,} = {s.world} process{'es' if s.world > 1 else ''} x {s.per_process:,}"
    if s.accumulate > 1:
        split += f", in {s.accumulate} micro-batches of {s.micro:,}"
    yield "batch", split
    yield "warm-up", f"{s.warmup:,} steps, {s.warmup / s.steps:.1%} of the run"
    seen = "" if s.val_count is None else f" of {s.val_count:,} samples"
    yield "validations", f"{s.validations:,}{seen}"
    disk = f"{size(plan.memory.checkpoint)} each, {size(s.kept * plan.memory.checkpoint)} kept"
    yield "checkpoints", f"{s.checkpoints:,} of {disk}" if s.checkpoints > 1 else f"1 of {disk}"
    yield "folder", plan.folder


def _job(plan: JobPlan) -> Iterable[list[str]]:
    facts = [] if plan.tokenizer is None else [("tokenizer", plan.tokenizer)]
    unit = "image" if plan.sides is None else _unit(plan)
    if plan.spec is not None:
        vocab = vocabulary(plan.spec.vocab) if plan.spec.vocab else f"width {plan.spec.dim}"
        facts.append((f"tokens/{unit}", f"{plan.spec.length} of {vocab}"))
    if plan.sample_bytes is not None:
        facts.append(("cache", f"{size(plan.sample_bytes)} per {unit}"))
    if plan.flops is not None:
        facts.append(("encoding", f"{amount(plan.flops)}FLOP/{unit}"))
    yield [fact(name, value) for name, value in facts]
    lines = []
    for split, samples in plan.counts.items():
        line = f"{samples:,} {unit}s -> {plan.folder}/{split}"
        if plan.sample_bytes is not None:
            line += f", {size(samples * plan.sample_bytes)}"
        lines.append(fact(split, line))
    yield lines or [fact("folder", plan.folder)]
