"""Base class of spaces."""

from __future__ import annotations

from torch import Tensor, nn

from vistok.config.contract import base_of, required
from vistok.core.draws import PartDraws
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape


@base_of("space")
class Space(nn.Module):
    """A representation of images or clips that an encoder reads, or a decoder gives.

    Normalization belongs to spaces, not to networks. Subclasses take (config, shape of the pixels)
    and set `shape`, that of a sample in this space.
    """

    shape: Shape
    reads_only: bool = False
    """True for an input space: nothing leads back to pixels."""
    frame_stride: int | None = None
    """Frames of pixels per frame of this space, if it takes 1 + k x stride for any k; None: it
    takes the frames that it was built for, or images."""

    @required
    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        """pixels [B, 3, *sides] in 0..1 -> x [B, C, *sides of this space], differentiable.

        Raises ValueError for a space that is an output only.
        """
        raise NotImplementedError

    @required
    def inverse(self, y: Tensor) -> Tensor:
        """The way back: y [B, C, *sides of this space] -> pixels [B, 3, *sides], unclamped.

        Raises ValueError for a space that is an input only.
        """
        raise NotImplementedError

    def share(self, other: Space) -> None:
        """Use the other space's networks instead of one's own, if they are the same."""

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Outcomes of a training step for samples `index` [B]; None unless it is stochastic."""
        return None
