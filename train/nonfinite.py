"""Steps whose loss or gradient is not finite: skipped by all processes, named and counted.

After too many in a row the run stops. Weights, averages and statistics never saw those steps, so
the last checkpoint is good.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from vistok.config.errors import NonFiniteError
from vistok.runtime import distributed
from vistok.storage.files import write_text
from vistok.train.state import RunState
from vistok.train.step import PhaseGradients

_REMEMBERED = 100  # steps of gradient norms that are dumped when a run stops
_SHOWN = 8  # samples that a message names; the file names all


class NonFiniteCheck:
    """Decides whether a step may be taken, and stops the run after too many that may not.

    Args:
        state: counts skipped steps over resumes.
        folder: where `alarms.jsonl` and `gradient_norms.jsonl` go.
        limit: skipped steps in a row after which the run stops.
        say: tells the user, if this is the main process.

    `.in_a_row`: steps skipped since the last good one.
    """

    def __init__(
        self,
        state: RunState,
        accelerator: Accelerator,
        folder: Path,
        limit: int,
        say: Callable[[str], None],
    ) -> None:
        self.state, self.accelerator = state, accelerator
        self.folder, self.limit, self.say = folder, limit, say
        self.in_a_row = 0
        self._asked = 0  # steps since this process began
        self._history: deque[tuple[int, Sequence[PhaseGradients]]] = deque(maxlen=_REMEMBERED)

    def passes(self, step: int, phases: Sequence[PhaseGradients]) -> bool:
        """True if the step may be taken; the same answer on every rank."""
        self._asked += 1
        self._history.append((step, [replace(found, micro_batches=()) for found in phases]))
        if not phases:  # nothing is due, so nothing is read
            self.in_a_row = 0
            return True
        # The one read of a step: nothing may move before it is known whether everything may.
        bad = torch.stack([~found.is_finite() for found in phases]).float()
        for found, is_bad in zip(phases, distributed.largest_(bad).tolist(), strict=True):
            if is_bad:  # what comes after it may only have followed
                self._report(step, found)
                return False
        self.in_a_row = 0
        return True

    def require_a_step(self) -> None:
        """NonFiniteError if every step of the run, or every step since it resumed, was skipped."""
        resumed = self._asked and self.in_a_row == self._asked
        if resumed or self.state.skipped >= self.state.step:
            count = self._asked if resumed else self.state.step
            raise NonFiniteError(
                f"all {count} steps were skipped, as no loss or gradient was finite: nothing was "
                "learned, no model is written; lower optimizer.lr, lengthen warmup, set clip, "
                "use precision=fp32, or look at the samples in alarms.jsonl, then start again with "
                "resume=never"
            )

    def _report(self, step: int, found: PhaseGradients) -> None:
        self.state.skipped += 1
        self.in_a_row += 1
        mine = {
            "process": self.accelerator.process_index,
            "terms": sorted({n for scalars, _ in found.micro_batches for n in _broken(scalars)}),
            "samples": [
                sample
                for scalars, index in found.micro_batches
                if _broken(scalars)
                for sample in index.tolist()
            ],
        }
        everywhere = gather_object([mine])
        parts = [part for part in _broken(found.norms) if part]
        fact = {
            "step": step,
            "alarm": "not finite",
            "module": found.module,
            "gradients": parts,
            "ranks": [rank for rank in everywhere if rank["terms"]],
        }
        self.note(fact)
        text = f"step {step} skipped: {_text(fact)}"
        if self.in_a_row < self.limit:
            self.say(f"{text} ({self.in_a_row} in a row, {self.limit} stop the run)")
            return
        dump = self.folder / "gradient_norms.jsonl"
        if self.accelerator.is_main_process:
            rows = [
                {"step": s, "module": t.module}
                | {p or "all": _plain(n) for p, n in t.norms.items()}
                for s, phases in self._history
                for t in phases
            ]
            write_text(dump, "".join(json.dumps(row) + "\n" for row in rows))
        raise NonFiniteError(
            f"{text}; {self.in_a_row} in a row, the limit of max_skipped. Weights are as they were "
            f"before; gradient norms of the last {_REMEMBERED} steps are in {dump}: lower "
            "optimizer.lr, lengthen warmup, set clip, use precision=fp32, or look at the samples "
            "in alarms.jsonl"
        )

    def note(self, fact: Mapping[str, Any]) -> None:
        """One line of alarms.jsonl."""
        if self.accelerator.is_main_process:
            with open(self.folder / "alarms.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(fact) + "\n")


def _broken(scalars: Mapping[str, Tensor]) -> list[str]:
    return [name for name, value in scalars.items() if not torch.isfinite(value.detach()).all()]


def _plain(number: Tensor) -> float | str:
    """For JSON, which has no nan and inf."""
    value = float(number)
    return value if math.isfinite(value) else str(value)


def _text(fact: Mapping[str, Any]) -> str:
    """One line about a step: the terms or gradients that were not finite, and where."""
    if not fact["ranks"]:
        parts = ", ".join(fact["gradients"]) or "all parts"
        return f"the gradient of {fact['module']} is not finite in {parts}"
    said = []
    for rank in fact["ranks"]:
        # "loss" is the sum: it is named only if no term of it is to blame.
        terms = [term for term in rank["terms"] if term != "loss"] or ["loss"]
        samples = ", ".join(map(str, rank["samples"][:_SHOWN]))
        more = len(rank["samples"]) - _SHOWN
        samples += f" and {more} more" if more > 0 else ""
        said.append(
            f"{', '.join(terms)} of {fact['module']} is not finite on process {rank['process']} "
            f"(samples {samples})"
        )
    return "; ".join(said)
