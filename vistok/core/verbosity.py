"""How much a command says: quiet (warnings and results alone), normal, or debug.

The level is a variable of the environment, so that the processes which a command starts (of
torchrun, of a study, of a data loader) have it too.
"""

from __future__ import annotations

import os
import sys
import time

LEVELS = ("quiet", "normal", "debug")
VARIABLE = "VISTOK_VERBOSITY"
TRACEBACKS = "VISTOK_DEBUG"  # any value: errors are raised with their traceback
_started = time.perf_counter()


def choose(level: str) -> None:
    """Set the level of this process and of those that it starts; debug shows tracebacks too."""
    os.environ[VARIABLE] = level
    if level == "debug":
        os.environ[TRACEBACKS] = "1"


def quiet() -> bool:
    """True if progress and notes are not wanted."""
    return os.environ.get(VARIABLE) == "quiet"


def note(text: str) -> None:
    """Print a line on what was done, unless the level is quiet."""
    if not quiet():
        print(text, flush=True)


def debug(text: str) -> None:
    """Print details to stderr, with the seconds since the start, if the level is debug."""
    if os.environ.get(VARIABLE) == "debug":
        print(f"[{time.perf_counter() - _started:7.2f} s] {text}", file=sys.stderr, flush=True)
