"""Long clips in windows of a fixed number of frames that overlap.

Frames: windows start every `frames - overlap` frames. Tokens: a causal tokenizer makes one time
step of its first frame and one of every `stride` frames after it; the steps of the overlap are
kept of the first window alone. Decoding goes in order: a window re-encodes the last decoded frames
to get the steps that were left out, and is shown the same frames as a condition.
This is the layout of VideoFlexTok's code (arXiv 2604.12887), for tokens that it made. `vistok
encode` keeps all tokens of every window instead (`vistok.chunking`), for any tokenizer of clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vistok.core.errors import InputError


@dataclass(frozen=True)
class Chunks:
    """Windows of a long clip."""

    frames: int  # of a window
    overlap: int  # frames that a window shares with the one before it
    stride: int  # frames of one time step
    causal: bool = True  # the first time step is one frame

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.frames:
            raise InputError(
                f"overlap={self.overlap} of chunks of {self.frames} frames; expected 0 to "
                f"{self.frames - 1}"
            )
        if (self.frames - self.causal) % self.stride:
            raise InputError(
                f"chunks of {self.frames} frames do not fill time steps; expected "
                f"{'1 + ' * self.causal}a multiple of {self.stride}"
            )

    @property
    def hop(self) -> int:
        """Frames from the start of a window to that of the next."""
        return self.frames - self.overlap

    @property
    def steps(self) -> int:
        """Time steps of a window."""
        return self.steps_of(self.frames)

    @property
    def shared_steps(self) -> int:
        """Time steps of the overlap, which all windows but the first leave out."""
        return self.steps_of(self.overlap)

    def steps_of(self, frames: int) -> int:
        """Time steps that the first `frames` frames of a window fill."""
        return (frames - self.causal) // self.stride + self.causal if frames else 0

    def count(self, frames: int) -> int:
        """Windows of a clip; InputError if some frames would be left over."""
        over = frames - self.frames
        if over < 0 or over % self.hop:
            below = self.frames + max(over, 0) // self.hop * self.hop
            near = f"{below} or {below + self.hop}" if over > 0 else f"{self.frames}"
            raise InputError(
                f"a clip of {frames} frames does not fill chunks of {self.frames} with an overlap "
                f"of {self.overlap}; expected {near} frames: cut or pad the clip"
            )
        return 1 + over // self.hop

    def padded(self, frames: int) -> int:
        """The smallest number of frames that fills windows and is not below `frames`."""
        return self.frames + max(0, -(-(frames - self.frames) // self.hop)) * self.hop

    def encode(self, clip: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Tokens [B, S, ...] of a clip [B, 3, T, H, W]: each window apart, overlaps left out."""
        parts = []
        for i in range(self.count(clip.shape[2])):
            window = clip[:, :, i * self.hop : i * self.hop + self.frames]
            parts.append(encode(window)[:, self.shared_steps if i else 0 :])
        return torch.cat(parts, dim=1)

    def decode(
        self,
        tokens: Tensor,
        decode: Callable[[Tensor, Tensor | None], Tensor],
        encode: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Clips [B, 3, T, H, W] of tokens [B, S, ...], one window after the other.

        Args:
            decode: Tokens of a window and, for all windows but the first, the decoded frames
                [B, 3, overlap, H, W] that it starts with -> its frames.
            encode: Frames of the overlap -> their tokens.
        """
        new = self.steps - self.shared_steps
        over = tokens.shape[1] - self.steps
        if over < 0 or over % new:
            raise InputError(
                f"{tokens.shape[1]} time steps do not fill chunks of {self.steps}; expected "
                f"{self.steps} and a multiple of {new} more"
            )
        clip = decode(tokens[:, : self.steps], None)
        for start in range(self.steps, tokens.shape[1], new):
            window, known = tokens[:, start : start + new], None
            if self.overlap:
                known = clip[:, :, -self.overlap :]
                window = torch.cat([encode(known), window], dim=1)
            clip = torch.cat([clip, decode(window, known)[:, :, self.overlap :]], dim=2)
        return clip
