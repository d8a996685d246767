"""SIGTERM and SIGINT: finish the step, save, and exit with 143 or 130."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vistok import distributed


class StopRequest:
    """Whether this run was asked to stop. `.number`: the signal, once there was one."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals instead of dying of them; the second one is not waited for."""

        def note(number: int, frame: object) -> None:
            if self.number is not None:
                raise KeyboardInterrupt
            self.number = number

        caught = (signal.SIGTERM, signal.SIGINT)
        handlers = {number: signal.signal(number, note) for number in caught}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked; all ranks then know the signal."""
        self.number = int(distributed.agree(float(self.number or 0), device)) or None
        return self.number is not None
