"""The collapse alarm: the codes that a tokenizer used over the last steps of training.

Usage is the number of different codes, over the number that as many uniform draws would show: a
large codebook and a short window do not look like a collapse. Codes of a vocabulary beyond
TABLE_LIMIT are hashed into a table of that size, and their number is estimated from its empty
places (linear counting, Whang et al. 1990).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.runtime import distributed
from vistok.tokens import TokenSpec

TABLE_LIMIT = 2**22  # places of a factor's table, one byte each
_ODD = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio of 64 bits: near codes land far apart


class CollapseConfig(Config):
    below: float = Field(default=0.05, gt=0, le=1)
    """Usage below which the alarm is raised: codes seen, as a share of those that as many uniform
    draws would show."""
    steps: int = Field(default=1000, ge=1)
    """Steps of one window of usage."""


class UsageWindow(nn.Module):
    """Codes seen by all ranks since the window began; its buffers go into checkpoints.

    A vocabulary of several factors is counted factor by factor; usage is their mean.
    """

    def __init__(self, spec: TokenSpec) -> None:
        super().__init__()
        self.vocab = spec.vocab
        self.sizes = tuple(min(size, TABLE_LIMIT) for size in self.vocab)
        firsts = [sum(self.sizes[:f]) for f in range(len(self.sizes))]
        self.register_buffer("firsts", torch.tensor(firsts), persistent=False)
        self.register_buffer("seen", torch.zeros(sum(self.sizes), dtype=torch.bool))
        self.register_buffer("tokens", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, indices: Tensor) -> None:
        """indices [B, L, F] of this rank's share of a batch."""
        # Not `seen[...] = True`: that takes a scalar of the host, which waits.
        if self.sizes != self.vocab:
            parts = zip(indices.unbind(-1), self.vocab, strict=True)
            indices = torch.stack([_hashed(part, size) for part, size in parts], -1)
        self.seen.index_fill_(0, (indices + self.firsts).flatten(), True)
        self.tokens += indices.shape[0] * indices.shape[1] * distributed.world_size()

    @torch.no_grad()
    def share(self) -> None:
        """Every rank learns what the others saw; saving needs it, and twice does no harm."""
        self.seen.copy_(distributed.sum_(self.seen.to(torch.int32)) > 0)

    def usage(self) -> float:
        """Codes seen, as a share of those that uniform draws would show; call `share` first."""
        tokens = int(self.tokens)
        shares = [
            _number(part, size) / expected_codes(size, tokens)
            for part, size in zip(self.seen.split(self.sizes), self.vocab, strict=True)
        ]
        return min(1.0, sum(shares) / len(shares))

    def begin(self) -> None:
        """Start a new window."""
        self.seen.zero_()
        self.tokens.zero_()


def _hashed(codes: Tensor, size: int) -> Tensor:
    """Places of codes in a table: their own in a small one, else by their product's upper bits."""
    if size <= TABLE_LIMIT:
        return codes
    return (codes.long() * _ODD >> (64 - TABLE_LIMIT.bit_length() + 1)) & (TABLE_LIMIT - 1)


def _number(seen: Tensor, size: int) -> float:
    """Number of different codes that filled a table [min(size, TABLE_LIMIT)]."""
    filled = int(seen.sum())
    if size <= TABLE_LIMIT:
        return float(filled)
    empty = max(1, len(seen) - filled)  # a full table says at least so many
    return min(float(size), -len(seen) * math.log(empty / len(seen)))


def expected_codes(size: int, draws: int) -> float:
    """Expected number of different codes in `draws` uniform draws from `size`."""
    return size * -math.expm1(draws * math.log1p(-1.0 / size)) if size > 1 else 1.0
