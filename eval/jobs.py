"""Doing one job of a protocol, and the outcome that is kept of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vistok.eval.context import Context
from vistok.eval.images import exact
from vistok.eval.protocols.base import Job
from vistok.eval.results.rows import Row
from vistok.eval.resumable import Passes
from vistok.runtime import distributed


@dataclass(frozen=True)
class Outcome:
    """Everything that a job made. All of it is JSON but for the rows, which are records."""

    rows: tuple[Row, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # under the fact's name, for this run
    skipped: tuple[dict[str, str], ...] = ()
    image_grids: tuple[dict[str, Any], ...] = ()


def do(job: Job, context: Context, passes: Passes | None = None) -> Outcome:
    """Run one job on every rank (or on the first, if its protocol says so).

    Args:
        passes: where its long loops are saved, so that a killed evaluation resumes them.
    """
    if job.protocol.first_rank and distributed.rank() > 0:
        return Outcome()
    seen = context if job.protocol.every_network else context.seen_by(context.features)
    own = replace(
        seen,
        job=job,
        seed=context.seed if job.seed is None else job.seed,
        facts={},
        skipped=[],
        image_grids=[],
        passes=passes or Passes(),
    )
    with exact():
        rows = job.protocol.run(own, job.config)
    return Outcome(tuple(rows), own.facts, tuple(own.skipped), tuple(own.image_grids))


def rows_of(outcomes: Iterable[Outcome]) -> tuple[Row, ...]:
    """All rows, in order. A row of no run (a codec on the images) is measured alike beside each
    tokenizer; it is listed once."""
    rows: list[Row] = []
    seen: set[str] = set()
    for row in (row for outcome in outcomes for row in outcome.rows):
        if not row.weights:
            own = row.model_dump_json(exclude={"versions", "commit", "date"})
            if own in seen:
                continue
            seen.add(own)
        rows.append(row)
    return tuple(rows)
