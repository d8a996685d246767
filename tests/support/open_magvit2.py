"""What the recordings of Open-MAGVIT2's tokenizers share."""

import torch
from torch import Tensor


def recorded_indices(io: dict[str, Tensor], bits: int) -> Tensor:
    """[B, L, F] of the recorded indices: one number per token, or two of a factorized vocabulary,
    whichever way they were written down (one tensor, or two, the first bits first).

    Args:
        bits: of a token, to count the tokens of the recorded `z` by.
    """
    names = [name for name in io if name.startswith("indices") or name in ("pre", "post")]
    names.sort(key=lambda name: ("post" in name, name))  # pre before post, 0 before 1
    batch, count = len(io["z"]), io["z"].numel() // bits
    given = [io[name] for name in names]
    if len(given) == 1 and given[0].numel() == 2 * count:
        given = given[0].unbind(-1 if given[0].shape[-1] == 2 else 0)
    return torch.stack([one.reshape(batch, -1) for one in given], dim=-1).long()
