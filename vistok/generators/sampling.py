"""From logits to a code: temperature, top-k, top-p, min-p, and a keyed uniform number.

The order is the usual one (LlamaGen, transformers): guide, divide by temperature, top-k, top-p,
min-p, sample.
Letters: B samples, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from vistok.config import Config
from vistok.core.draws import picked
from vistok.core.errors import InputError

COLDEST = 1e-4  # least temperature above 0: over less, logits are beyond fp32


def _divides(value: float) -> float:
    if 0 < value < COLDEST:  # logits over it would not be finite
        raise InputError(f"expected 0 (greedy) or {COLDEST:g} or more")
    return value


Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_divides)]
TopK = Annotated[int, Field(ge=0, le=2**31)]
TopP = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, le=1)]


class ChoiceConfig(Config):
    """Settings of the choice of a code from logits; a generator's sampling config extends them."""

    temperature: Temperature = 1.0
    """Divisor of the logits; 0 = greedy, the most likely code."""
    top_k: TopK = 0
    """Number of most likely codes that are sampled from; 0 = all."""
    top_p: TopP = 1.0
    """Probability that the most likely codes which are sampled from reach together; 1 = all."""
    min_p: MinP = 0.0
    """Least probability of codes that are sampled from, as a share of that of the most likely one;
    0 = all (arXiv 2407.01082)."""

    @property
    def narrows(self) -> bool:
        """True if some codes are left out of the choice."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def choose(logits: Tensor, u: Tensor, config: ChoiceConfig) -> Tensor:
    """logits [B, V] fp32, u [B] in [0, 1) -> codes [B] int64, by inverting the distribution."""
    if config.temperature == 0:
        return logits.argmax(-1)
    return invert(narrowed(logits, config).double().softmax(-1), u)


def invert(weights: Tensor, u: Tensor) -> Tensor:
    """Codes [B] int64, in proportion to weights [B, V], of uniform numbers u [B] in [0, 1)."""
    # In fp64 the cumulative sum ends at 1 up to a rounding that no u can fall behind.
    return picked(weights.double(), u.double())


def narrowed(logits: Tensor, config: ChoiceConfig) -> Tensor:
    """Logits [..., V] fp32 of the distribution that is sampled from: over the temperature (above
    0), -inf for codes that top_k, top_p or min_p leave out."""
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        # By place, not by value: equal logits must not let more than k through.
        kept = logits.topk(config.top_k, dim=-1, sorted=False)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    if config.top_p < 1:
        logits = _nucleus(logits, config.top_p)
    if config.min_p > 0:
        least = logits.amax(-1, keepdim=True) + math.log(config.min_p)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


def _nucleus(logits: Tensor, share: float) -> Tensor:
    """Logits of the fewest most likely codes whose probability reaches `share`; else -inf."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= share)
    return logits.masked_fill(drop, -torch.inf)
