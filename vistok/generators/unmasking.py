"""Parallel decoding of masked tokens (MaskGIT, arXiv 2202.04200; TiTok, arXiv 2406.07550).

All positions start masked. A step predicts every position at once and chooses codes with Gumbel
noise; the choices of which the model is least sure are masked again, fewer with every step. With
T steps, after step s = 0..T-1 the share r = (s + 1) / T is done.
Letters: B samples, L positions, F factors, V vocabulary of a factor.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vistok.generators.guidance import GuidanceConfig
from vistok.generators.orders import MaskSchedule, mask_ratio
from vistok.generators.sampling import ChoiceConfig, narrowed


class MaskedSampling(ChoiceConfig, GuidanceConfig):
    """Sampling settings of masked generators."""

    steps: int = Field(default=8, ge=1, le=10_000)
    """T, evaluations of the network (two each with guidance)."""
    schedule: MaskSchedule = "arccos"
    """Share of the positions that stay masked after r of the steps: arccos, acos(r) 2 / pi (TiTok);
    cosine, cos(r pi / 2) (MaskGIT); linear, 1 - r; root, 1 - sqrt(r); square, 1 - r**2."""
    noise: float = Field(default=4.5, ge=0, le=1e4, allow_inf_nan=False)
    """Scale of the Gumbel noise; it falls with the steps as noise (1 - r), to none in the last."""
    choice: Literal["annealed", "categorical"] = "annealed"
    """Choice of codes: annealed, the largest logit plus that noise (TiTok); categorical, sampled
    from the softmax at all steps, so that the noise ranks positions alone (MaskGIT)."""
    confidence: Literal["logit", "log_prob"] = "logit"
    """Number of a chosen code that, plus the noise, ranks the positions: its logit (TiTok), or the
    logarithm of its probability (MaskGIT)."""
    temperature_fall: float = Field(default=0.0, ge=0, le=1e4, allow_inf_nan=False)
    """Excess of the temperature at the start: logits are divided by temperature +
    temperature_fall (1 - r), unless the temperature is 0. TiTok's annealing is a temperature of 0.5
    with a fall of 0.8."""
    count_precision: Literal["float64", "float32"] = "float64"
    """Arithmetic of the number of masked positions; where the share of them ends on a whole number,
    float32 (MaskGen) may round it down."""
    guidance_share: Literal["before", "after"] = "before"
    """Share of the steps by which the guidance grows: before, of those before a step (TiTok);
    after, with the step itself (MaskGen)."""

    def guidance_at(self, step: int) -> float:
        """Scale of the guidance at step 0..T-1."""
        return self.scale_at((step + (self.guidance_share == "after")) / self.steps)


class StepNoise(NamedTuple):
    """Uniform numbers in [0, 1) of one step."""

    choice: Tensor  # [B, L, V1 + ... + VF]
    confidence: Tensor  # [B, L]


def gumbel(u: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers; both logarithms are of 1e-20 or more."""
    return -(-u.clamp(min=1e-20).log()).clamp(min=1e-20).log()


def count_masked(length: Tensor, step: int, settings: MaskedSampling) -> Tensor:
    """[B] positions that stay masked after a step, of the `length` [B] that were at the start."""
    # Not all by `mask_ratio`: the originals compute in Python and numpy, whose powers torch rounds
    # otherwise, and a share that ends on a whole number shows the last digit.
    done = (step + 1) / settings.steps
    if settings.count_precision == "float32":
        share = mask_ratio(torch.tensor(done, dtype=torch.float32), settings.schedule)
        return (length.float() * float(share)).floor().long()
    if settings.schedule == "arccos":
        share = np.arccos(done) / (math.pi * 0.5)
    elif settings.schedule == "cosine":
        share = np.cos(done * (math.pi * 0.5))
    else:
        share = 1 - done ** {"linear": 1, "root": 0.5, "square": 2}[settings.schedule]
    return (length.double() * float(share)).floor().long()


def choose_codes(
    logits: list[Tensor], noise: StepNoise, step: int, settings: MaskedSampling
) -> tuple[Tensor, Tensor]:
    """Codes [B, L, F] and their confidence [B, L].

    Args:
        logits: [B, L, V] fp32 of each factor, guided.
    """
    left = 1.0 - (step + 1) / settings.steps
    scale = settings.noise * left
    greedy = settings.temperature == 0
    divisor = settings.temperature + settings.temperature_fall * left
    now = settings.model_copy(update={"temperature": divisor})
    spread = scale if settings.choice == "annealed" else 1.0
    uniforms = noise.choice.split([part.shape[-1] for part in logits], dim=-1)
    codes, sure = [], 0.0
    for part, u in zip(logits, uniforms, strict=True):
        part = part if greedy else narrowed(part, now)
        noisy = part if greedy or spread == 0 else part + spread * gumbel(u)
        code = noisy.argmax(-1, keepdim=True)
        rated = part.log_softmax(-1) if settings.confidence == "log_prob" else part
        codes.append(code)
        sure = sure + rated.gather(-1, code)[..., 0]
    if scale:
        sure = sure + scale * gumbel(noise.confidence)
    return torch.cat(codes, dim=-1), sure


def least_sure(confidence: Tensor, masked: Tensor, count: Tensor) -> Tensor:
    """[B, L] bool: the positions to mask again.

    Args:
        confidence: [B, L]. masked: [B, L] bool, positions that were predicted.
        count: [B] positions wanted; one or more, and at least one fewer than were masked, if
            there are as many. Equals at the limit are masked too.
    """
    were = masked.sum(-1)
    count = torch.minimum(count, were - 1).clamp(min=1)
    ordered = confidence.masked_fill(~masked, torch.inf).sort(dim=-1).values
    limit = ordered.gather(-1, count[:, None] - 1)
    return masked & (confidence <= limit)
