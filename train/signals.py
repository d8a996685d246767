"""SIGTERM and SIGINT: finish the step, save, and exit with 143 or 130."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vistok import distributed

_ONE_REQUEST = 2.0  # seconds


class StopRequest:
    """Whether this run was asked to stop. `.number`: the signal, once there was one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals instead of dying of them; the second one is not waited for."""

        def note(number: int, frame: object) -> None:
            now = time.monotonic()
            # Launchers send a signal to the process and to its group: that is one request.
            if self.number is not None and now - self._since > _ONE_REQUEST:
                raise KeyboardInterrupt
            self.number, self._since = number, now

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
