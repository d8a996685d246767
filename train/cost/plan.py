"""The plan of a run before it starts: `vistok train CONFIG --dry-run`.

Parameters, tokens, FLOP, memory and the arithmetic of steps, computed from the config alone. No
weights, no GPU and no data are needed, and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vistok.config import Config, ConfigError
from vistok.config.registry import build, entry_of
from vistok.core.schedules import Progress
from vistok.data.base import stated
from vistok.data.order import check_split
from vistok.frozen.network import Frozen
from vistok.pretrained.table import released_name
from vistok.storage.hub import CONFIG
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.config import TrainConfig
from vistok.train.cost.planned import JobPlan, Memory, Part, Plan, Schedule, Stage, Work
from vistok.train.cost.trace import CostTrace, build_hollow
from vistok.train.jobs.base import Job
from vistok.train.launch import check_start
from vistok.train.optim.averaging import Average
from vistok.train.tasks.base import Task, check_sides
from vistok.train.tasks.teachers import described
from vistok.train.tasks.tokenizer import TokenizerTaskConfig


def make_plan(config: TrainConfig, world: int = 1, sharded: bool = False) -> Plan | JobPlan:
    """The plan of a run on `world` processes.

    Args:
        sharded: what is trained is cut over the processes (FSDP2); the average is whole on each.

    Raises ConfigError for what would stop the run too, and where the task cannot be built without
    its data (a generator needs the tokens' spec, a classifier the classes).
    """
    check_start(config)
    check_split(config.batch_size, world, config.accumulate)
    sets, notes = _open(config)
    train_set, kind = sets.get("train"), entry_of(config.task).part
    if issubclass(kind, Job):
        notes = (
            [] if config.data is None else notes
        )  # those of its tokenizer's run, once it is here
        return _job_plan(config, build(config.task, train_set), sets, notes)
    if train_set is None and kind.needs_data:
        raise ConfigError(
            f"data: {notes[0].partition(': ')[2]}; a {config.task.kind} takes its shape from its "
            "data: make or fetch it first, or point data at it"
        )
    task = build_hollow(_unstarted(config.task, notes), train_set)
    if config.ema is not None:
        for name in task.ema:
            Average(task.modules[name], config.ema, name)  # refuses what cannot be averaged
    trace = CostTrace(task, config.seed)
    watched = _watched(task)
    stages, work, flops = _stages(config, trace, watched, notes)
    schedule = _schedule(config, world, sets)
    first = task.phases[0].module
    late = Progress(config.steps, config.steps, schedule.epochs or 0.0)
    facts = task.facts()
    optimizer_flops, state = trace.optimizer(config.optimizer)
    return Plan(
        name=config.name,
        folder=config.folder,
        task=config.task.kind,
        sides=facts.sides,
        spec=facts.spec,
        parts=_parts(watched, flops),
        model=first,
        forward=flops[first],
        work=work,
        stages=stages,
        optimizer_flops=optimizer_flops,
        precision=config.precision,
        memory=_memory(config, task, trace, schedule, late, state, sharded),
        schedule=schedule,
        notes=tuple(notes),
    )


def stages_of(config: TrainConfig, data: Any) -> tuple[Stage, ...]:
    """FLOP of one sample's share of a step, by stage; cheap: nothing else of the plan is made."""
    task = build_hollow(_unstarted(config.task, []), data)
    trace = CostTrace(task, config.seed)
    return _stages(config, trace, {}, [])[0]


# -- data -------------------------------------------------------------------------------------


def _open(config: TrainConfig) -> tuple[dict[str, Any], list[str]]:
    """The data sets that are here, by split, and a note for what is not."""
    if config.data is None:
        return {}, ["data: none given; epochs unknown"]
    choice = config.data
    if getattr(choice, "cache", False):  # decoding every image would take minutes
        choice = choice.model_copy(update={"cache": False})
    try:
        part = build(choice)
        return {"train": part.open("train"), "val": part.open("val")}, []
    except (ValueError, OSError, ImportError) as error:
        reason = " ".join(str(error).split())
        return {}, [f"data: not found here ({reason}): epochs unknown"]


def _unstarted(config: Config, notes: list[str]) -> Config:
    """The task without the weights it would start from: they change no number of a plan."""
    stages = getattr(config, "init", ())
    if not stages:
        return config
    if isinstance(stages, str):  # all weights of a generator
        notes.append(f"init: weights from {stages} (not read by a dry run)")
        return config.model_copy(update={"init": None})
    for init in stages:
        here = ""
        if init.path is not None and not Path(init.path).exists():
            here = ", not a folder here"
        names = ", ".join((*init.parts, *init.networks))
        notes.append(f"init: {names} from {init.source} (not read by a dry run{here})")
    return config.model_copy(update={"init": ()})


# -- networks ---------------------------------------------------------------------------------


def _watched(task: Task) -> dict[str, nn.Module]:
    """Modules with a line of their own: parts of a tokenizer, other modules, networks of losses."""
    watched: dict[str, nn.Module] = {}
    for name, module in task.modules.items():
        watched[name] = module
        if isinstance(module, Tokenizer):
            parts = {part: getattr(module, part) for part in module.part_parameters()}
            watched |= {f"{name}.{part}": inner for part, inner in parts.items()}
    for helper in task.buffers.helpers:
        for module in helper.modules():
            if isinstance(module, Frozen):
                watched[module.name] = module
    return watched


def _parts(watched: Mapping[str, nn.Module], flops: Mapping[str, float]) -> tuple[Part, ...]:
    """A line each for the leaves of what is watched: `tokenizer.encoder` stands for `encoder`."""
    parts = []
    for name, module in watched.items():
        if any(other.startswith(f"{name}.") for other in watched):
            continue
        counts = {True: 0, False: 0}
        for parameter in module.parameters():
            counts[parameter.requires_grad] += parameter.numel()
        parts.append(Part(name.rpartition(".")[2], counts[True], counts[False], flops[name]))
    return tuple(parts)


def _stages(
    config: TrainConfig, trace: CostTrace, watched: Mapping[str, nn.Module], notes: list[str]
) -> tuple[tuple[Stage, ...], dict[str, Work], dict[str, float]]:
    """Stages of different cost; work by phase and FLOP by watched module in the last one."""
    task, found = trace.task, {0}
    late = dict(_starts(config.task.model_dump(), "task"))
    late |= {f"the {phase.module}'s start": phase.start for phase in task.phases}
    for name, step in late.items():
        if step < config.steps:
            found.add(step)
        elif not name.startswith("the "):
            notes.append(f"{name}={step:,} is never reached: the run has {config.steps:,} steps")
    stages: list[Stage] = []
    starts = sorted(found)
    for start, end in zip(starts, [*starts[1:], config.steps], strict=True):
        step = _plain_step(start, end)
        work, flops = trace.flops(Progress(step, config.steps), watched)
        every = {phase.module: phase.every for phase in task.phases}
        cost = sum((w.forward + w.backward) / every[name] for name, w in work.items())
        if not stages or stages[-1].flops != cost:
            stages.append(Stage(start, cost))
    return tuple(stages), work, flops


def _plain_step(start: int, end: int) -> int:
    """A step of start..end-1 at which nothing happens that is done every 10, 50 or 500 steps."""
    plain = (step for step in range(start, min(end, start + 10)) if step % 2 and step % 5)
    return next(plain, start)


def _starts(tree: Any, path: str) -> Iterator[tuple[str, int]]:
    """(place, step) of every `start` and `..._start` of a config."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        place = f"{path}.{key}"
        if isinstance(value, dict | list | tuple):
            yield from _starts(value, place)
        elif type(value) is int and str(key).rpartition("_")[2] == "start":
            yield place, value


# -- sizes ------------------------------------------------------------------------------------


def _memory(
    config: TrainConfig,
    task: Task,
    trace: CostTrace,
    schedule: Schedule,
    late: Progress,
    state: int,
    sharded: bool,
) -> Memory:
    modules = task.modules.values()
    tensors = {
        id(t): t for m in (*modules, *task.buffers.helpers) for t in (*m.parameters(), *m.buffers())
    }
    trained = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    moving = sum(map(_bytes, trained.values()))
    resting = sum(map(_bytes, tensors.values())) - moving
    share = schedule.world if sharded else 1
    buckets = schedule.world > 1 and not sharded
    copies = [task.modules[name] for name in task.ema if config.ema is not None]
    ema = sum(_bytes(t) for m in copies for t in (*m.parameters(), *m.buffers()))
    saved = [m.state_dict() for m in (*modules, *copies)]
    bf16 = config.precision == "bf16"
    activations = trace.saved(schedule.micro, late, bf16)
    return Memory(
        weights=resting + math.ceil(moving / share),
        gradients=math.ceil(moving / share) * (2 if buckets else 1),
        optimizer=math.ceil(state / share),
        ema=ema,
        activations=activations,
        activations_plain=(
            trace.saved(schedule.micro, late, bf16, fused=False) if bf16 else activations
        ),
        checkpoint=sum(_bytes(t) for tree in saved for t in tree.values()) + state,
    )


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


def _schedule(config: TrainConfig, world: int, sets: Mapping[str, Any]) -> Schedule:
    val_count = _length(sets.get("val"))
    if val_count is not None and config.validate_limit is not None:
        val_count = min(val_count, config.validate_limit)
    checkpoints = _times(config.steps, config.save_every)
    return Schedule(
        steps=config.steps,
        batch=config.batch_size,
        world=world,
        accumulate=config.accumulate,
        warmup=config.warmup,
        count=_length(sets.get("train")),
        val_count=val_count,
        validations=_times(config.steps, config.validate_every),
        checkpoints=checkpoints,
        kept=min(config.keep_last, checkpoints),
    )


def _length(data: Any) -> int | None:
    try:
        return None if data is None else len(data)
    except TypeError:  # a stream
        return None


def _times(steps: int, every: int) -> int:
    """Number of times: each `every` steps and after the last; 0 = after the last only."""
    return math.ceil(steps / every) if every else 1


# -- jobs -------------------------------------------------------------------------------------


def _job_plan(config: TrainConfig, job: Job, sets: Mapping[str, Any], notes: list[str]) -> JobPlan:
    sizes = {split: _length(data) for split, data in sets.items()}
    counts = {split: job.rows(split, size) for split, size in sizes.items() if size is not None}
    spec = sides = flops = None
    described = None if job.tokenizer is None else _described(job.tokenizer, notes)
    if described is not None:
        task = build_hollow(TokenizerTaskConfig(tokenizer=described), None)
        spec, tokenizer = task.facts().spec, task.modules["tokenizer"]
        sides = tokenizer.shape.sides
        check_sides(stated(config.data), sides, "this tokenizer")
        watched = {"encoder": tokenizer.encoder, "quantizer": tokenizer.quantizer}
        flops = sum(CostTrace(task, config.seed).flops(Progress(0, 1), watched)[1].values())
    return JobPlan(
        name=config.name,
        folder=config.folder,
        tokenizer=job.tokenizer,
        spec=spec,
        sides=sides,
        caches=job.caches,
        counts=counts,
        flops=flops,
        notes=tuple(notes),
    )


def _described(name: str, notes: list[str]) -> TokenizerConfig | None:
    """The config of a tokenizer that is on this machine or released; the hub is not asked."""
    reason, found = "is not here", None
    if released_name(name) is not None or _has_model(Path(name).expanduser()):
        reason = "is official weights, which a dry run does not read"
        found = described(name, "task.tokenizer")
    if found is None:
        notes.append(f"task.tokenizer: {name} {reason}: tokens and sizes unknown")
    return found


def _has_model(path: Path) -> bool:
    """False for a run that has not finished too: a plan may be asked for ahead of it."""
    running = (path / "metrics.jsonl").is_file() and not (path / "model" / CONFIG).is_file()
    return path.exists() and not running
