"""The guard: a step whose loss or gradient is not finite is skipped by all ranks, named, counted.

After too many in a row the run stops. Weights, averages and statistics never saw those steps, so
the last checkpoint is good.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from vistok.config.errors import NonFiniteError
from vistok.runtime import distributed
from vistok.storage.files import write_text

_REMEMBERED = 100  # steps of gradient norms that are dumped when a run stops
_SHOWN = 8  # samples that a message names; the file names all


@dataclass(frozen=True)
class Turn:
    """What a phase found in a step, before its module moves."""

    module: str
    micro_batches: Sequence[tuple[Mapping[str, Tensor], Tensor]]
    """(scalars by name, without graphs; the indices of their samples) each."""
    norms: Mapping[str, Tensor]
    """Of `gradients.norms_and_clip`."""

    def is_finite(self) -> Tensor:
        """Scalar bool on the device, of this rank."""
        seen = [scalars["loss"].float() for scalars, _ in self.micro_batches]
        return torch.isfinite(torch.stack([*seen, self.norms[""]])).all()


class Guard:
    """
    Args:
        folder: where `alarms.jsonl` and `gradient_norms.jsonl` go.
        limit: skipped steps in a row after which the run stops.
        say: tells the user, if this is the main process.

    `.skipped`: steps skipped so far; `.in_a_row`: those since the last good one.
    """

    def __init__(
        self, accelerator: Accelerator, folder: Path, limit: int, say: Callable[[str], None]
    ) -> None:
        self.accelerator, self.folder, self.limit, self.say = accelerator, folder, limit, say
        self.skipped = self.in_a_row = 0
        self._history: deque[tuple[int, Sequence[Turn]]] = deque(maxlen=_REMEMBERED)

    def passes(self, step: int, turns: Sequence[Turn]) -> bool:
        """Whether the step may be taken; the same answer on every rank."""
        if not turns:  # nobody's turn: nothing to know
            return True
        self._history.append((step, [replace(turn, micro_batches=()) for turn in turns]))
        # The one read of a step: nothing may move before it is known whether everything may.
        bad = torch.stack([~turn.is_finite() for turn in turns]).float()
        for turn, is_bad in zip(turns, distributed.largest_(bad).tolist(), strict=True):
            if is_bad:  # what comes after it may only have followed
                self._report(step, turn)
                return False
        return True

    def took(self) -> None:
        """A whole step was taken."""
        self.in_a_row = 0

    def _report(self, step: int, turn: Turn) -> None:
        self.skipped += 1
        self.in_a_row += 1
        mine = {
            "process": self.accelerator.process_index,
            "terms": sorted({n for scalars, _ in turn.micro_batches for n in _broken(scalars)}),
            "samples": [
                sample
                for scalars, index in turn.micro_batches
                if _broken(scalars)
                for sample in index.tolist()
            ],
        }
        everywhere = gather_object([mine])
        parts = [part for part in _broken(turn.norms) if part]
        fact = {
            "step": step,
            "alarm": "not finite",
            "module": turn.module,
            "gradients": parts,
            "ranks": [rank for rank in everywhere if rank["terms"]],
        }
        self.note(fact)
        text = f"step {step} skipped: {_sentence(fact)}"
        if self.in_a_row < self.limit:
            self.say(f"{text} ({self.in_a_row} in a row, {self.limit} stop the run)")
            return
        dump = self.folder / "gradient_norms.jsonl"
        if self.accelerator.is_main_process:
            rows = [
                {"step": s, "module": t.module}
                | {p or "all": _plain(n) for p, n in t.norms.items()}
                for s, turns in self._history
                for t in turns
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
            with open(self.folder / "alarms.jsonl", "a") as file:
                file.write(json.dumps(fact) + "\n")


def _broken(scalars: Mapping[str, Tensor]) -> list[str]:
    return [name for name, value in scalars.items() if not torch.isfinite(value.detach()).all()]


def _plain(number: Tensor) -> float | str:
    """For JSON, which has no word for nan and inf."""
    value = float(number)
    return value if math.isfinite(value) else str(value)


def _sentence(fact: Mapping[str, Any]) -> str:
    """What was not finite, and where."""
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
