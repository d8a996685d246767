"""Base class of encoders."""

from __future__ import annotations

from torch import Tensor, nn

from vistok.config.contract import base_of, required
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Grid


@base_of("encoder")
class Encoder(nn.Module):
    """Input space -> latents. Subclasses take (config, shape of the space, dim D of a latent)."""

    grids: tuple[Grid, ...]
    """Grids of the latents, in order; N is the sum of their cells."""
    stored: int | None = None
    """Latents that are kept as tokens, the first so many; None = all."""
    counted: bool = False
    """True: a sample may have fewer latents than N, as its `Latents.counts` say."""
    any_count: bool = False
    """True: `forward` takes a `count` of latents that are made in the place of N, and
    `check_count(count)` raises InputError for numbers that it cannot make."""

    frame_stride: int | None = None
    """Frames of the space per block of latents, if it takes 1 + k x stride for any k; None: it
    takes the shape that it was built for."""
    causal: bool = False
    """True: latents depend on their frames and those before, so that a clip may come in pieces,
    with a `stream`."""

    reads_fps: bool = False
    """True: it looks at the frame rate of a condition."""
    any_frames: int | None = None
    """It takes clips of any multiple of so many frames; None: of the shape's alone."""
    anchor: float | None = None
    """Frames per second at which the shape's frames are a period of time, where a sample stands for
    the period at every rate; None: for a number of frames."""

    @required
    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, *sides] of the input space -> latents [B, N, D]."""
        raise NotImplementedError
