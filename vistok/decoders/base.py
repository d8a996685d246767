"""Base class of decoders.

Letters: B batch, M values, D width of the values, C channels of the output space.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vistok.config import Config
from vistok.core.draws import PartDraws
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.rng import Rng
from vistok.core.schedules import Progress


class Decoder(nn.Module):
    """Values -> output space.

    Subclasses take (config, shape of the space, grids of the values, dim D of a value).
    """

    prefix: Literal["none", "token", "per_block"] = "none"
    """Prefixes that it serves by hiding values: none, of the sequence, or of each block."""
    reads_null: bool = False
    """True if it has an unconditional branch, which `Condition.null` selects for a sample."""
    sampling: Config | None = None
    """Default settings of its sampling; None: it is deterministic."""

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

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        raise NotImplementedError

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Outcomes of a training step for samples `index` [B]; None unless it is stochastic."""
        return None
