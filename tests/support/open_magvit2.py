"""What the recordings of Open-MAGVIT2's tokenizers share."""

import torch
from torch import Tensor


def recorded_indices(io: dict[str, Tensor], batch: int) -> Tensor:
    """[B, L, F] of the recorded indices: one number per token, or two of a factorized vocabulary,
    whichever way they were written down (`indices`, or two tensors, the first bits first)."""
    names = [name for name in io if name.startswith("indices") or name in ("pre", "post")]
    names.sort(key=lambda name: ("post" in name, name))  # pre before post, 0 before 1
    if len(names) > 1:
        factors = [io[name].reshape(batch, -1) for name in names]
    elif io[names[0]].ndim > 1 and io[names[0]].shape[0] == 2 != batch:
        factors = [one.reshape(batch, -1) for one in io[names[0]]]
    else:
        factors = [io[names[0]].reshape(batch, -1)]
    return torch.stack(factors, dim=-1).long()
