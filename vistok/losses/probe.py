"""Widths of a tokenizer's features, found by one pass that computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from vistok.config import ConfigError
from vistok.config.names import nearest
from vistok.core.records import Batch, Condition, Reconstruction
from vistok.core.schedules import Progress
from vistok.runtime.modes import evaluating


def width_of(tokenizer: nn.Module, source: str, tap: str | None) -> int:
    """Channels of a source of features: latents, quantized, clean, or a tap of encoder or decoder.

    ConfigError for a tap that is not there, with the nearest name.
    """
    seen = _seen(tokenizer)
    if source in ("quantized", "clean"):
        return seen.quantized.values.shape[-1]
    if source == "latents":
        return seen.latents.values.shape[-1]
    taps = (seen.latents if source == "encoder" else seen.decoded).features
    if tap not in taps:
        advice = nearest(tap, tuple(taps)) if taps else f"this {source} has none: see its `taps`"
        raise ConfigError(f"losses: the {source} has no tap '{tap}'; {advice}")
    return taps[tap].shape[-1]


def _seen(tokenizer: nn.Module) -> Reconstruction:
    """A pass over one image of zeros, with shapes and no numbers."""
    index = torch.arange(1, device="cpu")
    samples = tokenizer.sampling is not None  # one step at a sampled time, not a whole sampling
    draws = tokenizer.draw(index, 0, Progress(0, 1)) if samples else None
    with shapes_alone():
        batch = Batch(index, torch.zeros(1, 3, *tokenizer.shape.sides))
        condition = _condition(tokenizer)
        return passed(tokenizer, batch, draws, condition=condition, pixels=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Tensors made inside have shapes and no numbers, on the CPU even where a module is hollow:
    autocast does not know the meta device."""
    with torch.device("cpu"), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


def passed(module: nn.Module, *args: Any, **options: Any) -> Any:
    """Output of a module in evaluation mode, its weights without numbers; inside `shapes_alone`."""
    # Every tensor of every module once: tied ones each get their own, and a module that two parts
    # share is named once (torch's own search for ties leaves such a module without its weights).
    held = {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, part in module.named_modules()
        for name, tensor in (
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
        )
    }
    state = {name: torch.empty(one.shape, dtype=one.dtype) for name, one in held.items()}
    with evaluating(module):
        return functional_call(module, state, args, options, tie_weights=False)


def _condition(tokenizer: nn.Module) -> Condition | None:
    """Zeros in the place of texts, for a tokenizer that reads them."""
    for how in tokenizer.config.reading.values():
        text = torch.zeros(1, how.length, how.dim)
        return Condition(text=text, text_mask=torch.ones(1, how.length, dtype=torch.bool))
    return None
