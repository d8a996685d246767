"""SIGTERM and SIGINT, from the first line of the process to its last: exit codes 143 and 130.

While a run trains, a signal is a request: finish the step, save, exit. Before that and after it
there is nothing to save, and the process ends at once. A thread sees to that, told by Python's
wake-up pipe: the main thread may wait inside a library (for other processes, for a collective) that
lets no Python handler run.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CAUGHT = (signal.SIGTERM, signal.SIGINT)
_ONE_REQUEST = 5.0  # seconds; launchers send SIGINT to a process and to its group
_listener: _Listener | None = None


class StopRequest:
    """A request to stop this run. `.number`: the signal, once there was one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of ending at once.

        A second SIGTERM changes nothing (who sends it has SIGKILL, too); a second Ctrl-C ends.
        After an error a signal is still a request: launchers send one to a process that lost
        another, and its message must come out.
        """
        undo = install() if _listener is None else lambda: None
        listener, request = _listener, self
        listener.request = self
        try:
            yield
            request = None
        except SystemExit:
            request = None
            raise
        finally:
            sys.stdout.flush()  # what comes now ends the process without it
            listener.request, listener.place = request, "while it was ending"
            undo()

    def note(self, number: int) -> bool:
        """Note a signal; True if it must end the process at once."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            return False
        return number == signal.SIGINT and time.monotonic() - self._since > _ONE_REQUEST

    def agreed(self) -> bool:
        """True if any rank was asked; all ranks then know the signal."""
        from vistok.runtime import distributed

        found = int(distributed.agree(self.number or 0))
        if found:  # else one may have come just now: it is left for the next time
            self.number = found
        return bool(found)


def install() -> Callable[[], None]:
    """Take over both signals in this process; the function that gives them back."""
    global _listener
    listener = _listener = _Listener()

    def undo() -> None:
        global _listener
        listener.close()
        _listener = None

    return undo


class _Listener:
    """The thread, its pipe, and the effect of a signal at the moment."""

    def __init__(self) -> None:
        self.request: StopRequest | None = None
        self.place = "before the first step, with nothing to save"
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # The handlers themselves do nothing: the pipe has each signal's number.
        self._before = {number: signal.signal(number, _nothing) for number in _CAUGHT}
        self._pipe_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=self._in_child)
        atexit.register(self._restore)
        self._open, self._pid = True, os.getpid()
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()

    def close(self) -> None:
        self._open = False
        signal.set_wakeup_fd(self._pipe_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._write)
        atexit.unregister(self._restore)

    def _listen(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number in _CAUGHT:
                    request = self.request
                    if request is None or request.note(number):
                        self._leave(number)
        os.close(pipe)

    def _leave(self, number: int) -> None:
        place = self.place if self.request is None else "for the second time, without saving"
        rank = os.environ.get("RANK")
        who = "" if rank is None else f"process {rank} was "
        os.write(2, f"{who}stopped by signal {number} {place}\n".encode())
        os._exit(128 + number)

    def _in_child(self) -> None:
        """A fork shares the pipe, and must not speak for us; Ctrl-C is its parent's business."""
        if self._open:
            self._open = False
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _restore(self) -> None:
        """Python is shutting down, and threads with it: the signals do what they always did."""
        if self._open and os.getpid() == self._pid:
            for number in _CAUGHT:
                signal.signal(number, signal.SIG_DFL)


def _nothing(number: int, frame: object) -> None:
    pass
