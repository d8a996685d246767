"""Evaluation between frame rates (VFRTok, arXiv 2505.12053): clips are read at one rate, and what
is decoded at another is compared with the clips at that rate.

Both rates come from the data's clips by leaving frames out, as in training; the rates that are left
are told to the tokenizer. Higher rates than the data's cannot be measured: nothing is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from vistok import rates
from vistok.core.records import Batch, Condition
from vistok.eval.protocols.base import ProtocolConfig
from vistok.tokens import Tokens

if TYPE_CHECKING:
    from vistok.eval.context import Context


def of_samples(context: Context, condition: Condition | None, count: int) -> Condition | None:
    """The decoder's condition of `count` generated clips: with the frame rate and the frames of the
    data, for a decoder that looks at them."""
    decoder, memo = getattr(context.tokenizer, "decoder", None), context.views.memo
    if not getattr(decoder, "reads_fps", False):
        return condition
    if "fps" not in memo:
        memo["fps"] = context.views.dataset[0].fps
    fps = torch.full((count,), float(memo["fps"]), device=context.device)
    return replace(condition or Condition(), fps=fps, sides=tuple(context.sides))


class RatesConfig(ProtocolConfig):
    """Keys of protocols that can read clips at one frame rate and decode them at another."""

    read_fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second at which clips are encoded, at most the data's; null = the data's. For
    tokenizers of any frame rate."""
    target_fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second at which they are decoded and compared, at most the data's; null = the
    data's."""

    @property
    def rates(self) -> dict[str, float]:
        """The rates that are asked for, as rows carry them."""
        both = {"read_fps": self.read_fps, "target_fps": self.target_fps}
        return {name: value for name, value in both.items() if value is not None}


class Between:
    """The clips of a context at the two rates of a config.

    Attributes:
        reason: why there are none; "" if there are.
        sides: (T, H, W) of the clips that are compared.
    """

    def __init__(self, context: Context, config: RatesConfig) -> None:
        self.context, self.config = context, config
        self.sides: Sequence[int] = context.sides
        self.patch = getattr(getattr(context.tokenizer, "encoder", None), "any_frames", None)
        self.reason = self._reason() if config.rates else ""
        if config.target_fps is not None and not self.reason:
            count = rates.transcoded_frames(self.sides[0], self.fps, config.target_fps, self.patch)
            self.sides = (count, *self.sides[1:])

    @property
    def size(self) -> dict[str, Sequence[int]]:
        """The field of rows that says the sides of clips with other frames than the data's."""
        return {} if self.config.target_fps is None else {"size": tuple(self.sides)}

    @property
    def fps(self) -> float:
        """Frames per second of the data."""
        return float(self.context.views.record["fps"])

    def _reason(self) -> str:
        asked = ", ".join(f"{name}={value:g}" for name, value in self.config.rates.items())
        tokenizer, rate = self.context.tokenizer, self.context.views.record.get("fps")
        if self.patch is None or tokenizer.decoder.any_frames is None or not tokenizer.reads_fps:
            return f"{asked}: this tokenizer has one frame rate"
        if rate is None:
            return f"{asked}: clips of one frame rate are needed: give data.fps=..."
        for name, value in self.config.rates.items():
            if value > rate:
                return f"{name}={value:g}: the data have {rate:g} frames per second: give data.fps"
            if not rates.transcoded_frames(self.sides[0], rate, value, self.patch):
                return f"{name}={value:g}: {self.sides[0]} frames at {rate:g} are too few"
        return ""

    def split(self, batch: Batch) -> tuple[Batch, Tensor, Condition | None]:
        """(clips to encode, clips to compare with in 0..1, the decoder's condition)."""
        condition = self.context.condition(batch)
        if not self.config.rates:
            return batch, batch.pixels, condition
        low = lambda fps: rates.transcoded(batch.pixels, self.fps, fps or self.fps, self.patch)
        read, read_fps = low(self.config.read_fps)
        target, target_fps = low(self.config.target_fps)
        whole = lambda fps: torch.full((len(batch.index),), fps, device=batch.pixels.device)
        shown = replace(
            condition or Condition(), fps=whole(target_fps), sides=tuple(target.shape[2:])
        )
        return replace(batch, pixels=read, fps=whole(read_fps)), target, shown

    def encode(self, batch: Batch) -> tuple[Tokens, Tensor, Condition | None]:
        """(tokens, clips to compare with, the decoder's condition)."""
        read, real, shown = self.split(batch)
        return self.context.encode(read, self.context.condition(read)), real, shown
