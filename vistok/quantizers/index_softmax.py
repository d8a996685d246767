"""Expectations under p = softmax(z . e / temperature) over all codes, in memory of a few of them.

A codebook of 2^18 codes and a batch of latents have gigabytes of logits. Here codes go by in
chunks; each is computed again in the backward pass instead of being kept, so that latents x chunk
numbers are held at a time. Letters: n latents, K codes, d width of both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_HELD = 2**24  # logits at a time: 64 MB of fp32


def expected_code(z: Tensor, codes: Tensor, given: Tensor) -> Tensor:
    """[n, d]: the mean of rows `given` [K, d] under softmax(z . codes) of latents z [n, d].

    Differentiable in all three; rows that are given without a gradient leave that of the shares.
    """
    top, rest = _total(z, codes, 1.0)

    def part(rows: slice, z: Tensor, codes: Tensor, given: Tensor, rest: Tensor) -> Tensor:
        return (_logits(z, codes[rows], 1.0) - top - rest).exp() @ given[rows]

    return sum(_each(part, z, codes, given, rest))


def entropies(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """([n] entropies of each latent's shares, [K] mean share of each code), differentiable."""
    top, rest = _total(z, codes, temperature)

    def part(rows: slice, z: Tensor, codes: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        log_shares = _logits(z, codes[rows], temperature) - top - rest
        shares = log_shares.exp()
        return -(shares * log_shares).sum(-1), shares.mean(0)

    each = list(_each(part, z, codes, rest))
    return sum(entropy for entropy, _ in each), torch.cat([mean for _, mean in each])


def _logits(z: Tensor, codes: Tensor, temperature: float) -> Tensor:
    return z @ codes.T / temperature


def _total(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """([n, 1], [n, 1]): the largest logit, and the logarithm of the softmax's denominator less it.

    They stay apart: at a temperature of 0.01 logits are so large that their sum would round away
    what the shares differ in.
    """
    with torch.no_grad():
        of = lambda rows, z, codes: _logits(z, codes[rows], temperature).amax(-1)
        top = torch.stack(_each(of, z, codes), dim=-1).amax(-1, keepdim=True)

    def part(rows: slice, z: Tensor, codes: Tensor) -> Tensor:
        return (_logits(z, codes[rows], temperature) - top).exp().sum(-1)

    return top, torch.stack(_each(part, z, codes), dim=-1).sum(-1, keepdim=True).log()


def _each(part: Callable, z: Tensor, codes: Tensor, *more: Tensor) -> list:
    """`part(rows, z, codes, ...)` of each chunk of codes; its insides are not kept."""
    width = max(1, _HELD // max(1, len(z)))
    chunks = [slice(first, first + width) for first in range(0, len(codes), width)]
    if len(chunks) == 1:  # small: nothing to compute twice
        return [part(chunks[0], z, codes, *more)]
    return [checkpoint(part, rows, z, codes, *more, use_reentrant=False) for rows in chunks]
