"""Choice of the images that a regularizer concerns: a share of the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vistok.core.rng import Rng
from vistok.runtime import distributed

Choose = Literal["global", "first_local"]
"""global: a keyed pick of exactly floor(proportion * B) images of the global batch; first_local:
the first floor(proportion * B) of each process (RobusTok, ImageFolder)."""


def chosen_images(index: Tensor, proportion: float, choose: Choose, rng: Rng) -> Tensor:
    """[B] bool: which of this process's samples `index` [B] are concerned."""
    if choose == "first_local":
        return torch.arange(len(index)) < int(len(index) * proportion)
    mine = rng.child("images").uniform(index)
    everyone = distributed.gather(mine)
    count = int(len(everyone) * proportion)
    # Chosen by place, not by value: a sample that is twice in the batch has equal numbers.
    chosen = torch.zeros(len(everyone), dtype=torch.bool)
    chosen[everyone.argsort(stable=True)[:count]] = True
    first = distributed.rank() * len(index)
    return chosen[first : first + len(index)]
