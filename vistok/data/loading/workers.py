"""Setup of a loader's worker process: memory for images, signals, and the end of its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import partial

from vistok.config import load_plugins
from vistok.config.plugins import taken


def beginning() -> Callable[[int], None]:
    """torch's `worker_init_fn`: `begin` with the user's own modules that the parent has loaded."""
    return partial(begin, plugins=taken())


def begin(_: int, plugins: tuple[str, ...] = ()) -> None:
    """Load the user's own modules (a spawned process has none), get memory for images, and take
    SIGTERM from the parent alone.

    Schedulers send SIGTERM to every process of a job; a run that is about to finish its step and
    save needs its workers. The parent ends them when it is done; when it has died, they end by
    themselves.
    """
    load_plugins(plugins)
    _keep_memory()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()
    end_with_parent()


def _exit_on_sigterm_of_parent() -> None:
    parent = multiprocessing.parent_process().pid
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def end_with_parent() -> None:
    """End this process, at once, when its parent has ended, however that happened.

    torch's own watchdog looks at the process that forked this one. That is the parent under
    `fork` and `spawn`; under `forkserver` it is the server, which lives as long as its children.

    The parent holds one end of a pipe, which the system closes when the parent ends.
    """
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(0)


def _keep_memory() -> None:
    """PIL keeps up to 16 MiB of what it frees for the next image.

    Fresh pages cost a fifth of a small image's decoding. Blocks of one size, since PIL copies a
    kept block to fit another one, which made images of mixed sizes slower than no memory at all.
    """
    from PIL import Image

    Image.core.set_block_size(2**18)
    Image.core.set_blocks_max(64)
