"""Evaluation mode and frozen parameters for a while, in several threads at once.

A module's flags are shared by all threads that use it. Each flag is therefore counted: the first
block that needs it changed keeps the caller's setting and changes it, and the last one to end gives
the setting back. A thread that trains the module meanwhile is beyond this: it reads the same flags.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class _Held:
    """One owner of a flag while blocks need it: their number, and the caller's setting."""

    blocks: int
    setting: bool


class _Lowered:
    """A flag of modules or parameters that is False while any block needs it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._held: dict[int, _Held] = {}  # by id: parameters compare by value; blocks keep them
        self._lock = threading.Lock()

    @contextmanager
    def inside(self, owners: Sequence[Any]) -> Iterator[None]:
        with self._lock:
            for owner in owners:
                held = self._held.setdefault(id(owner), _Held(0, getattr(owner, self.name)))
                held.blocks += 1
                if getattr(owner, self.name):
                    setattr(owner, self.name, False)
        try:
            yield
        finally:
            with self._lock:
                for owner in owners:
                    held = self._held[id(owner)]
                    held.blocks -= 1
                    if not held.blocks:
                        del self._held[id(owner)]
                        if held.setting:
                            setattr(owner, self.name, True)


_TRAINING, _GRADIENTS = _Lowered("training"), _Lowered("requires_grad")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each submodule then gets back the mode the caller left it in.

    Blocks of several threads may overlap: the mode comes back when the last of them ends.
    """
    with _TRAINING.inside(list(module.modules())):
        yield


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """No parameter of the module asks for gradients inside; threads as in `evaluating`."""
    with _GRADIENTS.inside(list(module.parameters())):
        yield
