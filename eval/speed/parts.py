"""The parts of a tokenizer as single calls, and the memory that a call takes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.core.records import Condition, Noisy
from vistok.core.shapes import Shape

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def parts(
    tokenizer: Any, pixels: Tensor, condition: Condition | None = None
) -> dict[str, Callable[[], Any]]:
    """{part: a call of it alone} on what the parts before it made of `pixels` [B, 3, *sides].

    The encoder includes its input space, the decoder its output space (of a decoder that samples:
    one step); indices -> values, which `decode` does first, is the quantizer's lookup.
    """
    latents = tokenizer.latents(pixels, condition)
    quantized = tokenizer.quantize(latents)
    noisy = None
    if tokenizer.sampling is not None:
        x = torch.zeros(len(pixels), *_space(tokenizer.output_space.shape), device=pixels.device)
        noisy = Noisy(x, torch.full((len(pixels),), 0.5, device=pixels.device))
    found = {
        "encoder": lambda: tokenizer.latents(pixels, condition),
        "quantizer": lambda: tokenizer.quantize(latents),
        "decoder": lambda: tokenizer.output_space.inverse(
            tokenizer.reconstruct(quantized.clean, None, condition, noisy).estimate
        ),
    }
    if quantized.indices is not None:
        stored = quantized.indices[:, : tokenizer.spec().length]  # an encoder may emit more
        found["lookup"] = lambda: tokenizer.quantizer.lookup(stored)
    return found


def _space(shape: Shape) -> tuple[int, ...]:
    return (shape.channels, *shape.sides)


def peak_memory(function: Callable[[], Any], device: torch.device) -> tuple[int | None, str]:
    """(bytes, what they are) at the peak of one call; None where it cannot be known.

    On a GPU: what torch's allocator handed out, weights included. On Linux' CPUs: the resident
    memory of the whole process, after freed memory went back to the system.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        return peak, f"allocated on the GPU, {before / 2**30:.3f} of it before the call"
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5", encoding="utf-8")  # the high-water mark starts again
    except (AttributeError, OSError, TypeError):
        return None, "not measured: needs Linux with glibc"
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM"), f"resident, {before / 2**30:.3f} of it before the call"


def _resident(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    return 1024 * int(re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text("utf-8"), re.M)[1])
