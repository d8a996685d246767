"""Memory of this process: freed buffers stay, instead of going back to the system.

A training step on CPUs frees and asks for the same large buffers again and again. glibc gives each
one above 32 MB back at once, and the next one comes as fresh pages, which the kernel must find and
clear: a quarter of the bf16 step of a TiTok-S at batch 16 on two cores (57 % of the matrix rate
with glibc's defaults, 75 % with these). GPUs have torch's caching allocator for this.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> bool:
    """True if the C library was told; one that is not glibc is left as it is.

    It holds for the whole process, so only programs call it. The environment would have to be set
    before Python starts; a call needs no second process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
        # Large blocks from the heap like small ones, and a heap that never shrinks.
        return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
