"""Values of `precision` in a config, and a test for bf16 in hardware.

Most laptops' CPUs have no bf16 instructions; there a product in bf16 takes some hundred times as
long as one in fp32. `auto` becomes fp32 or bf16 where a config is read, so that a run's own config,
its checkpoints and its report name what was computed.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # of x86; the last of ARM


def has_bf16(device: torch.device | str | None = None) -> bool:
    """True if `device` (default: that of training) multiplies bf16 matrices natively."""
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in _INSTRUCTIONS)
    # Before that function: whether oneDNN takes bf16 at all, for which AVX512 alone is enough.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Context in which autocast is off on a device; it knows no meta device, where nothing is
    computed anyway."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _settled(precision: str) -> str:
    if precision != "auto":
        return precision
    return "bf16" if has_bf16() else "fp32"


Precision = Annotated[Literal["fp32", "bf16", "auto"], AfterValidator(_settled)]
"""Precision in a config; `auto` becomes bf16 where the hardware has it, else fp32, on reading."""


def dtype_of(precision: str | None) -> torch.dtype | None:
    """The dtype of a precision; None for None."""
    return {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def of_weights(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Precision of a module by its weights: autocast for those in bf16 or fp16, else nothing.

    Quantizers, spaces and norms then meet in fp32, as they do in mixed-precision training.
    """
    weight = next(module.parameters(), None)
    if weight is None or weight.dtype not in (torch.bfloat16, torch.float16):
        return contextlib.nullcontext()
    return torch.autocast(weight.device.type, dtype=weight.dtype)
