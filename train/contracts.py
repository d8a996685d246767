"""Checks of tasks: `vistok test-part my.module` for a task of one's own."""

from __future__ import annotations

from vistok.config import validate_part
from vistok.config.registry import build
from vistok.contracts.case import Case
from vistok.contracts.check import check, expect, expect_gradients, expect_shape
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.train.jobs.base import Job
from vistok.train.tasks.base import Task


def _made(case: Case) -> Task | None:
    """The task; None for a job, whose work is its own."""
    if issubclass(case.entry.part, Job):
        return None
    data = None
    if case.entry.part.needs_data:
        data = build(validate_part("data", {"kind": "photos", "size": 32})).open("train")
    return case.part(data)


@check("task", name="its example is a batch, and every phase names one of its modules")
def shapes(case: Case) -> None:
    task = _made(case)
    if task is None:
        return
    batch = task.example(2)
    expect(len(batch.index) == 2, f"example(2) has {len(batch.index)} samples; expected 2")
    unknown = {phase.module for phase in task.phases} - set(task.modules)
    expect(not unknown, f"phases name {sorted(unknown)}; expected names of {list(task.modules)}")


@check("task", name="a step of every phase: a finite loss, gradients in what it trains")
def steps(case: Case) -> None:
    task = _made(case)
    if task is None:
        return
    batch, progress, handed = task.example(4), Progress(5, 10), {}
    if task.wants_data:
        task.prepare(batch, Rng(0))
    draws = task.draw(batch.index, 0, progress)
    for phase in task.phases:
        outcome = task.step(phase, batch, draws, progress, handed)
        expect_shape(f"the loss of phase '{phase.module}'", outcome.loss, ())
        finite = bool(outcome.loss.isfinite())
        expect(finite, f"the loss of phase '{phase.module}' is not finite; expected a number")
        outcome.loss.backward()
        expect_gradients(task.modules[phase.module], f"the loss of phase '{phase.module}'")
        handed |= outcome.handed
