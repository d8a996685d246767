"""What a regularizer is: a thrower of dice."""

from __future__ import annotations

from torch import Tensor

from vistok.dice import Draws, Progress, Rng
from vistok.tokens import TokenSpec


class Regularizer:
    """Throws a training step's dice for the samples `index` [B]; has no forward and no weights."""

    needs_cut: bool = False
    """True if it shortens sequences, which the decoder must then allow."""
    throws: str
    """The field of `Draws` that it fills."""

    def check(self, spec: TokenSpec) -> None:
        """Raise ValueError if sequences of this spec cannot be regularised as configured."""

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        raise NotImplementedError
