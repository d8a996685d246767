"""Base class of decoders.

Letters: B batch, M values, D width of the values, C channels of the output space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from vistok.config import Config
from vistok.config.contract import base_of, needed_by, required
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Shape

Prefix = Literal["none", "token", "block", "per_block"]


def prefix_of(missing: Literal["mask_token", "drop", "refuse"], grids: Sequence[Grid]) -> Prefix:
    """The prefixes that a decoder serves by hiding values: of the sequence, or of each block where
    values lie on several grids; none if it refuses missing values."""
    if missing == "refuse":
        return "none"
    return "token" if len(grids) == 1 else "per_block"


@base_of("decoder")
class Decoder(nn.Module):
    """Values -> output space.

    Subclasses take (config, shape of the space, grids of the values, dim D of a value).
    """

    reads_null: bool = False
    """True if it has an unconditional branch, which `Condition.null` selects for a sample."""
    any_size: bool = False
    """True: it makes samples of the sides that a condition asks for."""
    reads_fps: bool = False
    """True: it looks at the frame rate of a condition."""
    any_frames: int | None = None
    """It makes clips of any multiple of so many frames; None: of the space's alone."""
    prefix: Prefix = "none"
    """Prefixes that it serves by hiding values: none, of the sequence, of whole blocks, or of each
    block."""
    any_count: bool = False
    """True: values are a set, of which it takes any number in the place of M."""
    any_blocks: bool = False
    """True: it takes any number of blocks; frames may depend on all of them."""
    causal: bool = False
    """True: it takes any number of blocks, and frames depend on their block and those before."""
    sampling: Config | None = None
    """Default settings of its sampling; None: it is deterministic."""

    @required
    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, M, D], present [B, M] bool (None = all) -> [B, C, *sides], differentiable.

        Args:
            noisy: where a decoder that samples stands; others are given none.
        """
        raise NotImplementedError

    @needed_by("losses that are balanced by gradients (adversarial)")
    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        raise NotImplementedError

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Outcomes of a training step for samples `index` [B]; None unless it is stochastic."""
        return None

    def check_sides(self, sides: Grid | None, pixels: Shape, space: Shape) -> None:
        """InputError for sides that a condition asks for and this decoder cannot make.

        Args:
            pixels, space: of a sample in pixels and in the output space; None as `sides`: its own.
        """
        if sides is None or tuple(sides) == pixels.sides:
            return
        if self.any_frames and len(sides) == 3 and tuple(sides[1:]) == pixels.image_size:
            if sides[0] % self.any_frames or sides[0] < 1:
                raise InputError(
                    f"sides={tuple(sides)}: this tokenizer decodes to multiples of "
                    f"{self.any_frames} frames"
                )
            return
        if not self.any_size or space != pixels:
            frames = len(sides) == 3 and tuple(sides[1:]) == pixels.image_size
            other = "makes any number of frames (patches.positions=none)"
            raise InputError(
                f"sides={tuple(sides)}: this tokenizer decodes to {pixels.sides} only; leave them "
                f"out, or use a tokenizer whose decoder "
                f"{other if frames else 'makes any size (kind: pyramid)'}"
            )
