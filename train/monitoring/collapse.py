"""The collapse alarm: the codes that a tokenizer used over the last steps of training.

Usage is the number of different codes, over the number that as many uniform draws would show: a
large codebook and a short window do not look like a collapse.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.runtime import distributed
from vistok.tokens import TokenSpec


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
        firsts = [sum(self.vocab[:f]) for f in range(len(self.vocab))]
        self.register_buffer("firsts", torch.tensor(firsts), persistent=False)
        self.register_buffer("seen", torch.zeros(sum(self.vocab), dtype=torch.bool))
        self.register_buffer("tokens", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, indices: Tensor) -> None:
        """indices [B, L, F] of this rank's share of a batch."""
        # Not `seen[...] = True`: that takes a scalar of the host, which waits.
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
            float(part.sum()) / expected_codes(size, tokens)
            for part, size in zip(self.seen.split(self.vocab), self.vocab, strict=True)
        ]
        return min(1.0, sum(shares) / len(shares))

    def begin(self) -> None:
        """Start a new window."""
        self.seen.zero_()
        self.tokens.zero_()


def expected_codes(size: int, draws: int) -> float:
    """Expected number of different codes in `draws` uniform draws from `size`."""
    return size * -math.expm1(draws * math.log1p(-1.0 / size)) if size > 1 else 1.0
