"""Clips longer than a tokenizer's, in windows of its frames that overlap.

Windows begin `window - overlap` frames apart. If the last one reaches beyond the clip it is padded,
or refused, as is asked; decoding cuts the padding off again. Where two windows overlap, their
reconstructions are mixed with weights that change linearly from one to the other and sum to 1
(`join: blend`); or each window is decoded with the last decoded frames of the one before as a
condition, and gives those behind them (`join: condition`, as VideoFlexTok does, arXiv 2604.12887;
it leaves the tokens of given time steps out, which are kept here: every window has the same).

Memory does not grow with the clip: frames are read from an iterator and given by one, and a batch
of windows is held in floats.
Letters: T frames of a window, N windows, F frames of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from vistok import rates
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.tiling import of_all
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens
from vistok.tokens.labels import Chunked

Pad = Literal["repeat", "reflect"]
_BATCH = 4  # windows at a time


@dataclass(frozen=True)
class Chunking:
    """Places of the windows of one clip."""

    frames: int  # of the clip, F
    window: int  # frames of a window, T
    overlap: int  # frames that neighboring windows share
    join: Literal["blend", "condition"] = "blend"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"a clip of {self.frames} frames; expected 1 or more")
        if not 0 <= self.overlap <= self.window // 2:
            raise InputError(
                f"overlap={self.overlap}: expected 0..{self.window // 2}, half of a window's "
                f"{self.window} frames"
            )

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        frames: int,
        overlap: int | None = None,
        fps: float | None = None,
    ) -> Chunking:
        """The windows of a clip; the default overlap is that of the config's `chunks`, or 0.

        Args:
            fps: of the clip; a window of a tokenizer whose samples stand for a period of time has
                as many frames as make it.
        InputError for a tokenizer of images, for an overlap that is larger than half a window, and
        for none where windows are given frames of the one before.
        """
        if not tokenizer.shape.is_clip:
            raise InputError("chunks: this tokenizer takes images; chunks are for clips only")
        chunks = tokenizer.config.chunks
        if overlap is None:
            overlap = 0 if chunks is None else chunks.overlap
        join = "blend" if chunks is None else chunks.join
        if join == "condition" and not overlap:
            raise InputError("overlap=0: this tokenizer's windows are given frames; use 1 or more")
        return cls(frames, rates.frames_at(tokenizer, fps), overlap, join)

    @property
    def step(self) -> int:
        """Frames from the beginning of one window to that of the next."""
        return self.window - self.overlap

    def __len__(self) -> int:
        return 1 + max(0, math.ceil((self.frames - self.window) / self.step))

    @property
    def padding(self) -> int:
        """Frames of the last window that lie beyond the clip."""
        return self.window + (len(self) - 1) * self.step - self.frames

    def check_whole(self) -> None:
        """InputError, which says the counts that work, if the last window needs padding."""
        if self.padding:
            longer = self.frames + self.padding
            less = longer - self.step
            near = f"{less} or {longer}" if less >= self.window else f"{longer}"
            raise InputError(
                f"{self.frames} frames; this tokenizer's windows take {self.window} + "
                f"{self.step} k ({near}): give --pad repeat or --pad reflect, or cut the video"
            )

    def record(self) -> Chunked:
        """The facts that a .vtk file keeps."""
        return Chunked(self.frames, self.overlap, len(self))

    @classmethod
    def from_record(
        cls, tokenizer: Tokenizer, chunked: Chunked, fps: float | None = None
    ) -> Chunking:
        """The windows that a .vtk file describes; InputError if they cannot be this tokenizer's."""
        chunking = cls.of(tokenizer, chunked.frames, chunked.overlap, fps)
        if len(chunking) != chunked.count:
            raise InputError(
                f"{chunked.count} windows; a clip of {chunked.frames} frames has {len(chunking)} "
                f"of {chunking.window}: the file is damaged"
            )
        return chunking

    def cut(self, frames: Iterable[Tensor], pad: Pad | None = None) -> Iterator[Tensor]:
        """Windows [3, T, H, W] of the frames [3, H, W]; the last is padded from its own frames.

        InputError if they are not F frames, or if the last window needs a padding that is None.
        """
        if pad is None:
            self.check_whole()
        source, held, seen = iter(frames), [], 0
        for number in range(len(self)):
            fresh = list(islice(source, self.window - len(held)))
            seen += len(fresh)
            held += fresh
            if number == len(self) - 1:
                seen += sum(1 for _ in source)
                if seen != self.frames:
                    raise InputError(f"{seen} frames came; expected {self.frames}")
                places = padded(len(held), self.window, pad)
                held = [held[place] for place in places]
            yield torch.stack(held, dim=1)
            held = held[self.step :]


@torch.no_grad()
def encode(
    tokenizer: Tokenizer,
    frames: Iterable[Tensor],
    chunking: Chunking,
    pad: Pad | None = None,
    length: int | None = None,
    condition: Condition | None = None,
    *,
    batch: int = _BATCH,
) -> Tokens:
    """Frames [3, H, W] in 0..1, as they come -> the tokens of the N windows of one clip.

    Args:
        pad: what fills the last window; None refuses a clip that does not fill it.
        length: of every window, as in `Tokenizer.encode`. condition: of one sample, for each.
        batch: windows at a time.
    """
    device = next(tokenizer.parameters()).device
    windows, parts = chunking.cut(frames, pad), []
    while some := list(islice(windows, batch)):
        pixels = torch.stack(some).to(device)
        parts.append(tokenizer.encode(pixels, length, of_all(condition, len(some))))
    return Tokens.cat(parts)


@torch.no_grad()
def decode(
    tokenizer: Tokenizer,
    tokens: Tokens,
    chunking: Chunking,
    condition: Condition | None = None,
    *,
    seed: int = 0,
    sampling: Any = None,
    batch: int = _BATCH,
) -> Iterator[Tensor]:
    """The tokens of N windows -> the F frames [3, H, W] in 0..1 on the CPU, one by one.

    Args:
        seed, sampling: as in `Tokenizer.decode`; the noise of a decoder that samples is keyed by
            the number of the window.
    """
    if len(tokens) != len(chunking):
        raise InputError(f"{len(tokens)} samples of tokens for {len(chunking)} windows")
    if chunking.join == "condition":
        yield from _continued(tokenizer, tokens, chunking, condition, seed, sampling)
        return
    left, before = chunking.frames, None
    for number, window in windows(tokenizer, tokens, condition, seed, sampling, batch):
        window = _blended(before, window, chunking.overlap)
        last = number == len(chunking) - 1
        done = chunking.window if last else chunking.step
        before = window[:, done:].clone()
        yield from window[:, : min(done, left)].unbind(1)
        left -= min(done, left)


def windows(
    tokenizer: Tokenizer,
    tokens: Tokens,
    condition: Condition | None,
    seed: int,
    sampling: Any,
    batch: int,
) -> Iterator[tuple[int, Tensor]]:
    """(number, pixels [3, T, H, W] in 0..1 on the CPU) of each window, `batch` decoded at a time.

    condition: of one window, the same for all.
    """
    for start in range(0, len(tokens), batch):
        rows = range(start, min(len(tokens), start + batch))
        pixels = tokenizer.decode(
            tokens.select(slice(rows.start, rows.stop)),
            of_all(condition, len(rows)),
            seed=seed,
            index=torch.tensor(rows),
            sampling=sampling,
        )
        yield from zip(rows, pixels.float().cpu(), strict=True)


def _continued(
    tokenizer: Tokenizer,
    tokens: Tokens,
    chunking: Chunking,
    condition: Condition | None,
    seed: int,
    sampling: Any,
) -> Iterator[Tensor]:
    """The frames of `decode`, where each window is given the last frames of the one before."""
    left, known = chunking.frames, None
    for number in range(len(chunking)):
        given = condition
        if known is not None:
            given = replace(condition or Condition(), frames=known[None])
        window = tokenizer.decode(
            tokens.select(slice(number, number + 1)),
            given,
            seed=seed,
            index=torch.tensor([number]),
            sampling=sampling,
        )[0]
        window = window.float().cpu()
        fresh = window if known is None else window[:, chunking.overlap :]
        known = window[:, -chunking.overlap :].clone()
        yield from fresh[:, :left].unbind(1)
        left -= min(left, fresh.shape[1])


def _blended(before: Tensor | None, window: Tensor, overlap: int) -> Tensor:
    """The window whose first frames are mixed with the last ones [3, overlap, H, W] before it."""
    if before is None or overlap == 0:
        return window
    weight = ((torch.arange(overlap) + 0.5) / overlap)[:, None, None]
    mixed = before * (1 - weight) + window[:, :overlap] * weight
    return torch.cat([mixed, window[:, overlap:]], dim=1)


def padded(count: int, size: int, pad: Pad | None) -> list[int]:
    """Places of `size` frames in a window that has `count`."""
    if pad == "reflect" and count > 1:
        turn = 2 * (count - 1)
        return [min(place % turn, turn - place % turn) for place in range(size)]
    return [min(place, count - 1) for place in range(size)]
