"""Tokens of clips decoded at another frame rate, window by window (VFRTok, arXiv 2505.12053).

Window k of a clip begins k times a window's duration after the first. Frame n of the new clip is
shown at n / fps and comes from the window that this moment lies in; each window is decoded to as
many whole patches of frames as it needs, and what is beyond its end is left out. So the new clip
has the old one's duration whatever the two rates are.
Letters: N windows, F frames of the clip as it was encoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistok import rates
from vistok.chunking import Chunking, windows
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens

_NEAR = 1e-6  # frames


def transcodes(tokenizer: Tokenizer) -> bool:
    """True for a tokenizer whose tokens decode at any frame rate."""
    return tokenizer.decoder.any_frames is not None and tokenizer.decoder.reads_fps


@torch.no_grad()
def decode(
    tokenizer: Tokenizer,
    tokens: Tokens,
    chunking: Chunking,
    fps: float,
    condition: Condition | None = None,
    *,
    seed: int = 0,
    sampling: Any = None,
    batch: int = 4,
) -> Iterator[Tensor]:
    """The tokens of N windows -> frames [3, H, W] in 0..1 on the CPU at `fps`, one by one.

    Arguments as of `vistok.chunking.decode`. InputError for windows that overlap, and for tokens
    that do not say at which rate they were encoded.
    """
    rates.check_rate(tokens, fps, f"--fps {fps:g}")
    if chunking.overlap:
        raise InputError(
            f"--fps {fps:g}: windows that share {chunking.overlap} frames decode at their own rate "
            "only; leave it out, or encode with --overlap 0"
        )
    ratio, patch = fps / tokens.fps, tokenizer.decoder.any_frames
    total = max(1, round(chunking.frames * ratio))
    firsts = [min(total, _first(k * chunking.step * ratio)) for k in range(len(chunking))]
    counts = [after - first for first, after in zip(firsts, (*firsts[1:], total), strict=True)]
    most = max(1, math.ceil(max(counts) / patch)) * patch
    sides = (most, *tokens.size[1:])
    at = replace(condition or Condition(), sides=sides, fps=torch.tensor([float(fps)]))
    for number, window in windows(tokenizer, tokens, at, seed, sampling, batch):
        yield from window[:, : counts[number]].unbind(1)


def _first(place: float) -> int:
    """The first whole frame at or behind a place in frames."""
    return math.ceil(place - _NEAR)
