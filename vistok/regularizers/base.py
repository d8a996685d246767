"""Base class of regularizers."""

from __future__ import annotations

from torch import Tensor

from vistok.core.draws import Draws
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.tokens import TokenSpec


class Regularizer:
    """Samples which tokens are dropped or perturbed in a training step; other parts apply it.

    It has no forward pass and no weights.
    """

    needs_prefix: bool = False
    """True if it shortens sequences, which the decoder must then allow."""
    fills: tuple[str, ...]
    """Fields of `Draws` that it fills."""

    def check(self, spec: TokenSpec) -> None:
        """Raise ValueError if sequences of this spec cannot be regularized as configured."""

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """The fields of a training step for samples `index` [B]."""
        raise NotImplementedError
