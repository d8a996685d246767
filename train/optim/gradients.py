"""Gradient norms, whole and by part, and clipping; for sharded parameters over all ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vistok.runtime import distributed


def norms_and_clip(
    module: nn.Module, limit: float | None, beside: Mapping[str, nn.Module] | None = None
) -> dict[str, Tensor]:
    """{"": norm of all gradients, part: norm of that part's, ...}; scaled down to `limit` if any.

    Parts are the module's direct children that have gradients, then the modules `beside` it, which
    are clipped together with it. Norms are fp32 scalars on the device, taken
    before clipping; one gradient that is not finite makes the norm so, and all of them useless.
    """
    parameters = [*module.named_parameters()]
    for name, other in (beside or {}).items():
        parameters += ((f"{name}.{inner}", p) for inner, p in other.named_parameters())
    named = [(name, p.grad) for name, p in parameters if p.grad is not None]
    if not named:
        return {"": torch.zeros((), device=next(module.parameters()).device)}
    gradients = [distributed.local(grad.detach()) for _, grad in named]
    norms = torch.stack(torch._foreach_norm(gradients))
    if any(distributed.is_sharded(grad) for _, grad in named):
        norms = _over_ranks(norms, [grad for _, grad in named])
    total = torch.linalg.vector_norm(norms)
    if limit is not None:
        # NaN passes through clamp as NaN; such a step is dropped before anything moves.
        factor = torch.clamp(limit / (total + 1e-6), max=1.0)
        torch._foreach_mul_(gradients, factor)
    # Parts lie side by side: they are cut out, not picked by indices, which would have to travel.
    sizes = Counter(name.partition(".")[0] for name, _ in named)
    parts = zip(sizes, norms.split([*sizes.values()]), strict=True)
    return {"": total} | {part: torch.linalg.vector_norm(own) for part, own in parts}


def _over_ranks(norms: Tensor, gradients: list[Tensor]) -> Tensor:
    """Norms of shares -> norms of the whole; those of replicated gradients stay."""
    cut = torch.tensor([distributed.is_sharded(g) for g in gradients])
    cut = cut.to(norms.device, non_blocking=True)
    squares = distributed.sum_(torch.where(cut, norms.square(), torch.zeros_like(norms)))
    return torch.where(cut, squares.sqrt(), norms)
