"""Prediction of a position's factors from its hidden state.

joint: one softmax over the vocabulary. independent: a softmax per factor, all at once.
causal: factor by factor, each seeing those before it. bernoulli: one probability per bit.
bit_rounds: bits in a few rounds; those of a round are independent given all earlier rounds.
intra: as causal, by a small transformer over the factors (intra_head.py).
Letters: B batch, L positions, W width, F factors, V vocabulary of a factor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.core.errors import InputError

HeadKind = Literal["joint", "independent", "causal", "bernoulli", "bit_rounds", "intra"]
# (logits [R, V], factor) -> codes [B]; R = 2B rows where guidance needs pairs
Pick = Callable[[Tensor, int], Tensor]

OF_BITS = ("bernoulli", "bit_rounds")
JOINT_LIMIT = 2**16  # a softmax wider than this is refused: regroup the vocabulary


def choose_head(vocab: tuple[int, ...]) -> HeadKind:
    """The kind of head for a vocabulary, if none is asked for."""
    if len(vocab) == 1:
        return "joint"
    return "bernoulli" if set(vocab) == {2} else "causal"


def check_head(kind: HeadKind, vocab: tuple[int, ...]) -> None:
    """InputError, with what to do, unless a head of this kind can model the vocabulary."""
    if (kind == "joint" and len(vocab) != 1) or (kind in OF_BITS and set(vocab) != {2}):
        raise InputError(
            f"head={kind} cannot model vocab={vocab}; expected head={choose_head(vocab)}"
        )
    if max(vocab) > JOINT_LIMIT:
        raise InputError(
            f"a softmax over {max(vocab)} codes is too wide (limit {JOINT_LIMIT}); set regroup to "
            "smaller factors with the same product, e.g. regroup=[64,4096] for 2**18"
        )


def check_choice(kind: HeadKind, narrows: bool) -> None:
    """InputError if settings leave codes out of the choice of a bit."""
    if kind in OF_BITS and narrows:
        raise InputError(
            "top_k, top_p and min_p have no meaning for independent bits; leave them out"
        )


def make_head(
    kind: HeadKind, width: int, vocab: tuple[int, ...], bias: bool = False, rounds: int = 4
) -> nn.Module:
    """Build a head; ValueError names the heads that can model the vocabulary.

    Args:
        bias: of the last layers; bits have one in any case. rounds: of bit_rounds.
    """
    check_head(kind, vocab)
    if kind == "bit_rounds":
        return BitRoundsHead(width, vocab, rounds)
    heads = {
        "joint": IndependentHead,
        "independent": IndependentHead,
        "causal": CausalHead,
        "bernoulli": BernoulliHead,
    }
    return heads[kind](width, vocab, bias)


class IndependentHead(nn.Module):
    """One linear layer, split into a softmax per factor (for one factor: the joint head)."""

    def __init__(self, width: int, vocab: tuple[int, ...], bias: bool = False) -> None:
        super().__init__()
        self.vocab = vocab
        self.out = _zeros(nn.Linear(width, sum(vocab), bias=bias))

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """hidden [B, L, W], indices [B, L, F] -> nats [B, L]."""
        parts = self.out(hidden).float().split(self.vocab, dim=-1)
        return sum(_nats(part, indices[..., f]) for f, part in enumerate(parts))

    def sample(self, hidden: Tensor, pick: Pick) -> Tensor:
        """hidden [R, W] -> [B, F]."""
        parts = self.out(hidden).float().split(self.vocab, dim=-1)
        return torch.stack([pick(part, f) for f, part in enumerate(parts)], dim=-1)


class CausalHead(nn.Module):
    """Factor f sees the hidden state and the factors before it (Open-MAGVIT2, arXiv 2409.04410)."""

    def __init__(self, width: int, vocab: tuple[int, ...], bias: bool = False) -> None:
        super().__init__()
        self.vocab = vocab
        self.embed = nn.ModuleList(nn.Embedding(size, width) for size in vocab[:-1])
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
            for _ in vocab
        )
        self.out = nn.ModuleList(nn.Linear(width, size, bias=bias) for size in vocab)
        for layer in self.embed:
            nn.init.normal_(layer.weight, std=0.02)
        for layer in self.out:
            _zeros(layer)

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        total = 0.0
        for f in range(len(self.vocab)):
            total = total + _nats(self.logits(hidden, f), indices[..., f])
            if f < len(self.embed):
                hidden = hidden + self.embed[f](indices[..., f])
        return total

    def sample(self, hidden: Tensor, pick: Pick) -> Tensor:
        chosen = []
        for f in range(len(self.vocab)):
            chosen.append(pick(self.logits(hidden, f), f))
            if f < len(self.embed):
                # Guidance runs two rows per sample; both continue with the same code.
                copies = len(hidden) // len(chosen[-1])
                hidden = hidden + self.embed[f](chosen[-1]).repeat(copies, 1)
        return torch.stack(chosen, dim=-1)

    def logits(self, hidden: Tensor, f: int) -> Tensor:
        """fp32 logits of factor f, from a hidden state that holds the factors before it."""
        return self.out[f](hidden + self.mix[f](hidden)).float()


class BernoulliHead(nn.Module):
    """Independent bits (Instella-T2I, arXiv 2506.21022)."""

    def __init__(self, width: int, vocab: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.out = _zeros(nn.Linear(width, len(vocab)))

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        logits = self.out(hidden).float()
        bits = indices.to(logits)
        return F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(-1)

    def sample(self, hidden: Tensor, pick: Pick) -> Tensor:
        logits = self.out(hidden).float()
        pairs = torch.stack([torch.zeros_like(logits), logits], dim=-1)  # [R, F, 2]
        return torch.stack([pick(pairs[:, f], f) for f in range(pairs.shape[1])], dim=-1)


class BitRoundsHead(nn.Module):
    """Bits in rounds: round r of R predicts bits r, r + R, ... from the hidden state and the bits
    of earlier rounds; the others are masked (0 among -1 and 1). The likelihood is exact."""

    def __init__(self, width: int, vocab: tuple[int, ...], rounds: int) -> None:
        super().__init__()
        bits = len(vocab)
        self.rounds = min(rounds, bits)
        turn = torch.arange(bits) % self.rounds
        self.register_buffer("turn", turn, persistent=False)
        self.known = nn.Linear(bits, width, bias=False)
        self.place = nn.Parameter(torch.randn(self.rounds, width) * 0.02)
        self.mix = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        self.out = _zeros(nn.Linear(width, bits))

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """hidden [B, L, W], indices [B, L, F] -> nats [B, L]."""
        signs, total = indices.to(hidden.dtype) * 2 - 1, 0.0
        for r in range(self.rounds):
            logits = self._logits(hidden, signs * (self.turn < r), r)
            bits = indices[..., r :: self.rounds].to(logits)
            nats = F.binary_cross_entropy_with_logits(logits, bits, reduction="none")
            total = total + nats.sum(-1)
        return total

    def sample(self, hidden: Tensor, pick: Pick) -> Tensor:
        """hidden [R, W] -> [B, F]."""
        chosen: list[Tensor | None] = [None] * len(self.turn)
        seen = hidden.new_zeros(len(hidden), len(self.turn))
        for r in range(self.rounds):
            logits = self._logits(hidden, seen, r)
            pairs = torch.stack([torch.zeros_like(logits), logits], dim=-1)
            seen = seen.clone()
            for place, f in enumerate(range(r, len(chosen), self.rounds)):
                chosen[f] = pick(pairs[:, place], f)
                # Guidance runs two rows per sample; both continue with the same bits.
                copies = len(hidden) // len(chosen[f])
                seen[:, f] = chosen[f].repeat(copies).to(seen) * 2 - 1
        return torch.stack(chosen, dim=-1)

    def _logits(self, hidden: Tensor, seen: Tensor, r: int) -> Tensor:
        """fp32 logits of the bits of round r."""
        x = hidden + self.known(seen) + self.place[r].to(hidden.dtype)
        return self.out(x + self.mix(x)).float()[..., r :: self.rounds]


def _zeros(layer: nn.Linear) -> nn.Linear:
    """The layer, starting from zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _nats(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy [B, L] of logits [B, L, V]."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
