"""Distributions of the kept length k in 1..N, for regularizers that drop tails.

A hard tail keeps the first k positions. A soft one keeps each position by itself, position i with
the probability P(k >= i) that the hard one has: probabilities that fall along the sequence, from 1
for the first (after STAT, arXiv 2601.14246, whose encoder predicts them for each image; here they
are fixed, and positions are independent).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.rng import Per, Rng
from vistok.regularizers.base import Regularizer
from vistok.tokens import TokenSpec

Lengths = Literal[
    "uniform",
    "pow2",
    "uniform_pow2",
    "doubling",
    "geometric",
    "uniform_halved",
    "halved",
    "power_law",
]
_STEEPEST = 60.0  # |log ratio| up to which a mean is looked for
_HALVINGS = 100


class KeptLengthsConfig(Config):
    """Keys that the regularizers share."""

    lengths: Lengths
    """uniform: 1..N; pow2: 1, 2, 4, ..., N alike (N a power of two); uniform_pow2: uniform, then
    rounded up to a power of two (at most N); doubling: 1, 2, 4, ... and N alike, for any N;
    geometric: k with a share proportional to ratio^k (Rippel 2014); uniform_halved: k uniform, then
    N halved floor(log2(N // k)) times; halved: N, N // 2, N // 4, ..., 1 alike; power_law: a share
    proportional to k^-power (the last three after VideoFlexTok's code)."""
    ratio: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """Of geometric lengths: share of k + 1 over that of k."""
    power: float = Field(default=0.5, ge=0, le=20)
    """Of power_law lengths: the share of k falls as k^-power."""
    mean: float | None = Field(default=None, gt=1, allow_inf_nan=False)
    """Of geometric lengths, instead of `ratio`: the mean of k, between 1 and N."""
    tail: Literal["hard", "soft"] = "hard"
    """hard: nothing is kept behind k; soft: each position is kept by itself, with the share of k
    that reach it."""
    per: Per = "sample"
    """One draw per sample, or one for the whole batch."""

    @model_validator(mode="after")
    def _one_of_both(self) -> KeptLengthsConfig:
        given = [name for name in ("ratio", "mean") if getattr(self, name) is not None]
        if self.lengths != "geometric" and given:
            raise InputError(f"{given[0]} is a key of lengths=geometric, not of {self.lengths}")
        if self.lengths == "geometric" and len(given) != 1:
            raise InputError(
                "lengths=geometric takes ratio (such as 0.9) or mean (such as 40), one of both"
            )
        return self

    def keep(self, u: Tensor, total: int) -> Tensor:
        """Uniform numbers u [B] in [0, 1) -> kept lengths [B] int64 in 1..total."""
        if self.lengths in ("uniform", "pow2", "uniform_pow2"):
            return keep_lengths(u, total, self.lengths)
        below = self.shares(total).cumsum(0)[:-1]
        return 1 + torch.searchsorted(below, u.double().contiguous(), right=True)

    def shares(self, total: int) -> Tensor:
        """P(k) of k = 1..total, [total] float64; InputError if they do not fit this N."""
        counts = torch.zeros(total, dtype=torch.float64)
        if self.lengths == "uniform":
            counts += 1
        elif self.lengths == "geometric":
            counts += self._geometric(total)
        elif self.lengths == "power_law":
            counts += torch.arange(1, total + 1, dtype=torch.float64) ** -self.power
        elif self.lengths == "uniform_halved":
            halved = [total >> (total // k).bit_length() - 1 for k in range(1, total + 1)]
            counts += torch.bincount(torch.tensor(halved) - 1, minlength=total)
        elif self.lengths == "halved":
            counts[[(total >> i) - 1 for i in range(total.bit_length())]] = 1
        elif self.lengths == "uniform_pow2":
            rounded = [min(total, 1 << (k - 1).bit_length()) for k in range(1, total + 1)]
            counts += torch.bincount(torch.tensor(rounded) - 1, minlength=total)
        else:
            if self.lengths == "pow2":
                _check_power(total)
            powers = (2**i for i in range(total.bit_length()))
            counts[[k - 1 for k in sorted({*powers, total})]] = 1
        return counts / counts.sum()

    def reached(self, total: int) -> Tensor:
        """P(k >= i) of i = 1..total, [total] float64: how often a hard tail keeps position i."""
        found = self.shares(total).flip(0).cumsum(0).flip(0)
        found[0] = 1  # rounding would lose the first one now and then
        return found

    def _geometric(self, total: int) -> Tensor:
        """Shares of k = 1..total up to a factor, [total] float64."""
        if self.ratio is not None:
            return _powers(math.log(self.ratio), total)
        if not 1 < self.mean < total:
            raise InputError(
                f"mean={self.mean:g} of lengths 1..{total}; expected a number between both"
            )
        low, high = -_STEEPEST, _STEEPEST
        for _ in range(_HALVINGS):  # the mean grows with the ratio
            middle = (low + high) / 2
            if _mean(_powers(middle, total)) < self.mean:
                low = middle
            else:
                high = middle
        return _powers((low + high) / 2, total)


class DropsTails(Regularizer):
    """Base class: shows a prefix of random length, or a mask that thins out along the sequence."""

    needs_prefix = True
    fills = ("keep",)
    config: KeptLengthsConfig

    def __init__(self, config: KeptLengthsConfig) -> None:
        self.config = config
        if config.tail == "soft":
            self.fills = ("present",)

    def check(self, spec: TokenSpec) -> None:
        self.config.shares(spec.max_prefix)
        if self.config.tail == "soft" and spec.prefix == "block":
            raise InputError(
                "tail=soft hides single tokens, and this quantizer leaves out whole blocks; use "
                "tail=hard"
            )

    def tail(self, spec: TokenSpec, index: Tensor, u: Tensor, whole: Tensor, rng: Rng) -> Draws:
        """The draws of samples `index` [B] from their numbers u [B]; `whole` [B] keep all."""
        total = spec.max_prefix
        if self.config.tail == "hard":
            return Draws(keep=torch.where(whole, total, self.config.keep(u, total)))
        inside = [place for block in spec.block_lengths for place in range(block)]
        places = inside if spec.prefix == "per_block" else list(range(spec.length))
        each = rng.child("tokens").uniform(index, (spec.length,), per=self.config.per)
        kept = each.double() < self.config.reached(total)[places]
        return Draws(present=kept | whole[:, None])


def keep_lengths(u: Tensor, total: int, lengths: str) -> Tensor:
    """Uniform numbers u [B] in [0, 1) -> kept lengths [B] in 1..total, of the first three kinds."""
    if lengths == "pow2":
        _check_power(total)
        return 2 ** (u.double() * total.bit_length()).long().clamp(max=total.bit_length() - 1)
    keep = 1 + (u.double() * total).long().clamp(max=total - 1)
    if lengths == "uniform_pow2":
        powers = 2 ** torch.arange((total - 1).bit_length() + 1)
        keep = powers[torch.searchsorted(powers, keep)].clamp(max=total)
    return keep


def _check_power(total: int) -> None:
    if total & (total - 1):
        raise InputError(
            f"lengths=pow2 needs a power of two, the sequence has {total}; use uniform_pow2 or "
            "doubling"
        )


def _powers(log_ratio: float, total: int) -> Tensor:
    """exp(log_ratio * k) of k = 1..total over the largest of them, [total] float64."""
    exponents = log_ratio * torch.arange(total, dtype=torch.float64)
    return (exponents - exponents.max()).exp()


def _mean(shares: Tensor) -> float:
    places = torch.arange(1, len(shares) + 1, dtype=torch.float64)
    return float((shares * places).sum() / shares.sum())
