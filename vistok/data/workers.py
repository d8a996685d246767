"""What a loader's worker process does before it reads."""

from __future__ import annotations

import signal


def begin(_: int) -> None:
    """torch's `worker_init_fn`: memory for pictures, and a longer life than one SIGTERM."""
    _keep_memory()
    signal.signal(signal.SIGTERM, _pass_over)


def _pass_over(number: int, frame: object) -> None:
    """Schedulers send SIGTERM to every process of a job; a run that is about to finish its step and
    save needs its workers. The next one counts: torch ends workers so that do not end themselves.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _keep_memory() -> None:
    """PIL keeps up to 16 MiB of what it frees for the next picture.

    Fresh pages cost a fifth of a small picture's decoding. Blocks of one size, since PIL copies a
    kept block to fit another one, which made pictures of mixed sizes slower than no memory at all.
    """
    from PIL import Image

    Image.core.set_block_size(2**18)
    Image.core.set_blocks_max(64)
