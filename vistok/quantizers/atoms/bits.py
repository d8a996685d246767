"""Helpers of sign codes: digits <-> indices, and entropies of independent bits in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.quantizers.nearest import nearest_on_grid
from vistok.runtime import distributed

_WHOLE = 16  # bits of a group whose codes are enumerated for every sample


def bits_to_index(bits: Tensor) -> Tensor:
    """[..., C] of 0 or 1 -> [...] int64, the first bit is the lowest."""
    weights = 2 ** torch.arange(bits.shape[-1], device=bits.device)
    return (bits.long() * weights).sum(-1)


def index_to_bits(index: Tensor, count: int) -> Tensor:
    """[...] -> [..., count] int64 of 0 or 1, lowest first."""
    return index.long()[..., None] >> torch.arange(count, device=index.device) & 1


def flip_costs(z: Tensor, magnitude: float = 1.0) -> list[Tensor]:
    """z [n, C] -> for each bit [n, 2], distance that choosing 0 or 1 adds to the nearest code's.

    Codes are +-magnitude, so |z - c|^2 grows by 4 magnitude |z_i| for each bit against its sign.
    """
    costs = torch.stack([z.relu(), (-z).relu()], -1) * (4 * magnitude)
    return list(costs.unbind(1))


def nearest_flips(z: Tensor, count: int, magnitude: float = 1.0) -> Tensor:
    """z [n, C] -> [n, count, C] int64 bits of the nearest sign codes, nearest first; count is
    clipped to 2^C.

    Ties go to fewer flipped bits, then to the lower index. Of many bits only the count - 1 that are
    cheapest to flip are looked at: a code that flips another comes behind each of those flips
    alone, and behind no flip at all.
    """
    costs = torch.stack(flip_costs(z, magnitude), 1)  # [n, C, 2]
    kept = max(count - 1, 1)
    if kept >= z.shape[1]:
        return nearest_on_grid(list(costs.unbind(1)), count, flips=True)
    clean = costs.argmin(-1)  # [n, C]
    # Equal costs in the order of the codes: 1 becomes 0 from the highest bit, then 0 becomes 1.
    number = torch.arange(1, z.shape[1] + 1, device=z.device)
    order = torch.where(clean == 1, -number, number).argsort(dim=1, stable=True)
    flip = costs.sum(-1)  # one of the two is 0
    order = order.gather(1, flip.gather(1, order).argsort(dim=1, stable=True))
    few = order[:, :kept].sort(dim=1).values  # [n, kept]
    chosen = costs.gather(1, few[..., None].expand(-1, -1, 2))
    digits = nearest_on_grid(list(chosen.unbind(1)), count, flips=True)  # [n, count, kept]
    near = clean[:, None].repeat(1, digits.shape[1], 1)
    return near.scatter(2, few[:, None].expand_as(digits), digits)


def binary_entropy(logits: Tensor) -> Tensor:
    """H(sigmoid(logits)) in nats, stable for large logits."""
    p = torch.sigmoid(logits)
    return torch.nn.functional.softplus(logits) - p * logits


def sample_entropy(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over samples of the entropy of the code distribution: bits are independent, so a sum.

    Args:
        logits: [n, C], the log odds of each bit being 1.
        weights: [n] of the samples, 1 on average over the global batch; None = all 1.
    """
    entropy = binary_entropy(logits).sum(-1)
    return (entropy if weights is None else entropy * weights).mean()


def _distribution(logits: Tensor) -> Tensor:
    """Log odds [n, g] of independent bits -> probabilities [n, 2^g] of their codes."""
    on, off = torch.sigmoid(logits), torch.sigmoid(-logits)
    p = on.new_ones(len(on), 1)
    for i in range(on.shape[-1]):  # the codes so far without and with this bit, the highest
        p = torch.cat([p * off[:, i, None], p * on[:, i, None]], dim=-1)
    return p


def batch_entropy(
    logits: Tensor,
    group: int,
    weights: Tensor | None = None,
    eps: float = 0.0,
    everywhere: bool = True,
) -> Tensor:
    """Entropy of the mean code distribution over the global batch, in groups of bits.

    The distribution over all 2^C codes does not factorize once it is averaged; it is computed
    exactly inside groups of `group` neighboring bits and the groups' entropies are added (an upper
    bound; exact for group = C).

    Args:
        logits, weights: as in `sample_entropy`.
        eps: added to the mean probabilities inside the logarithm.
        everywhere: the batch is that of all processes; False = of this one, as in evaluation,
            where processes may have different numbers of batches.
    """
    total = logits.new_zeros(())
    for part in logits.split(group, dim=-1):
        if part.shape[-1] <= _WHOLE:
            p = _distribution(part)  # [n, K]
            mean = (p if weights is None else p * weights[:, None]).mean(0)
        else:  # a distribution over many codes is a product of two, which is averaged as it is made
            low, high = (_distribution(half) for half in part.split(-(-part.shape[-1] // 2), -1))
            low = low if weights is None else low * weights[:, None]
            mean = (low.T @ high).flatten() / len(part)
        mean = distributed.mean(mean) if everywhere else mean
        # A code that no sample can reach has mean 0 exactly: its log must not be -inf, or the
        # gradient is -inf * 0.
        inside = mean + eps if eps else mean.clamp_min(torch.finfo(mean.dtype).tiny)
        total = total - (mean * inside.log()).sum()
    return total
