"""What a loss is: it names its terms unweighted, and says how each is weighted now."""

from __future__ import annotations

from torch import Tensor, nn

from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress


class Loss(nn.Module):
    """Base of all losses. `forward` gives unweighted terms under the papers' names."""

    wants_teacher: str | None = None
    """The saved or released tokenizer that `teach` has to hand in before `bind`; None = none."""

    needs_pixels: bool = True
    """Whether it looks at `Reconstruction.pixels`, which may cost another network to decode."""

    def teach(self, tokenizer: nn.Module, sha256: str) -> None:
        """Take the tokenizer that `wants_teacher` names; it is frozen and never saved."""
        raise NotImplementedError

    def bind(self, tokenizer: nn.Module) -> None:
        """Look at the tokenizer once (its last layer, its widths) before training."""

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        raise NotImplementedError

    def weights(self, progress: Progress) -> dict[str, float]:
        """The factor of each term now; a term without one is only logged."""
        raise NotImplementedError
