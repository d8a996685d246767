"""Factors that fall with the kept length of a token sequence (ReTok, arXiv 2601.01535).

The paper says that the strength of its semantic regularization falls as the kept length grows, and
not by which function: linear and half a cosine are offered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config, ConfigError

_SHAPES = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + torch.cos(math.pi * share)) / 2,
}


class TaperConfig(Config):
    shape: Literal["linear", "cosine"] = "cosine"
    start: int = Field(default=32, ge=1)
    """Kept length up to which the factor is 1 (ReTok's K0)."""
    stop: int | None = Field(default=None, ge=2)
    """Kept length from which it is 0; null = all latents, the redundant ones too."""

    def check(self, count: int, fills: Sequence[tuple[str, ...]]) -> None:
        """ConfigError if no regularizer draws kept lengths, or if start and stop do not fit.

        Args:
            count: values of one sample. fills: fields that each regularizer draws.
        """
        if not any("keep" in fields for fields in fills):
            raise ConfigError(
                "losses: alignment.taper falls with the kept length, but no regularizer draws one; "
                "add one (redundant_padding, nested_dropout, tail_token_drop), or remove taper"
            )
        stop = count if self.stop is None else self.stop
        if self.start >= stop:
            raise ConfigError(
                f"losses: alignment.taper.start={self.start} must lie below its stop {stop}"
            )

    def factor(self, keep: Tensor, count: int) -> Tensor:
        """keep [B] or [B, S] -> factors [B] float32 in 0..1; of S prefixes the mean counts."""
        stop = count if self.stop is None else self.stop
        length = keep.float() if keep.ndim == 1 else keep.float().mean(1)
        share = ((length - self.start) / (stop - self.start)).clamp(0, 1)
        return _SHAPES[self.shape](share)
