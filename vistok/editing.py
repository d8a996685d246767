"""Edit images through their tokens: copy tokens, fill holes, follow any differentiable loss.

No generator and no training: a frozen tokenizer with few tokens is enough ("Highly Compressed
Tokenizer Can Generate Without Training", Lao Beyer et al., ICML 2025, arXiv 2506.08257).
Letters: B batch, N latents, D width, L positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.errors import NonFiniteError
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.rng import Rng
from vistok.runtime.modes import evaluating, without_gradients
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens

Objective = Callable[[Tensor], Tensor]
"""Pixels [B, 3, H, W] (differentiable, not clamped) -> loss of each image [B]."""


class EditConfig(Config):
    """Settings of `optimize`; the defaults are those of the published code."""

    after_quantizer: bool = False
    """Move the code vectors that the decoder sees; false: the latents in front of the quantizer,
    with its straight-through gradient, so that every image is one of real codes."""
    lr: float = Field(default=0.1, gt=0, le=1e6, allow_inf_nan=False)
    """Learning rate of Adam."""
    steps: int = Field(default=600, ge=1)
    ema: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """Decay of the average that is decoded at the end; 0 = the last tokens."""
    noise: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)
    """Normal noise on the tokens before each step, falling as half a cosine to 0 at two thirds."""
    pull: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)
    """Weight of the mean squared distance to `pull_to`."""
    pull_to: Literal["seed", "zero"] = "seed"
    """Tokens that `pull` draws towards: seed, those it started from; or zero."""
    seed: int = 0
    """Key of the noise."""


@dataclass(frozen=True)
class Step:
    """State of an optimization after a step, as callbacks see it."""

    number: int
    tokens: Tensor  # [B, N, D], averaged
    pixels: Tensor  # [B, 3, H, W] before the step, of the tokens that were not averaged
    losses: Tensor  # [B] before the step, without `pull`


@dataclass(frozen=True)
class Edited:
    """Result of `optimize`."""

    pixels: Tensor  # [B, 3, H, W] in 0..1
    values: Tensor  # [B, N, D], averaged: what was optimized
    losses: Tensor  # [steps, B]
    tokens: Tokens | None  # the codes; None if the code vectors themselves moved, or have no codes


def copy_tokens(target: Tokens, source: Tokens, positions: Sequence[int]) -> Tokens:
    """`target` with the codes of `source` at some positions; ValueError for what does not fit."""
    if target.spec != source.spec:
        raise InputError(
            f"tokens of {source.spec.blocks} {source.spec.vocab} cannot be copied into "
            f"{target.spec.blocks} {target.spec.vocab}; encode both with one tokenizer"
        )
    same = zip(target.made_by or "", source.made_by or "", strict=False)  # one may be a beginning
    if any(ours != theirs for ours, theirs in same):
        raise InputError(
            f"tokens made by other weights ({source.made_by}) than the target's ({target.made_by}) "
            "mean nothing there; encode both with one tokenizer"
        )
    length = target.spec.length
    wrong = [p for p in positions if not -length <= p < length]
    if wrong:
        raise InputError(f"position {wrong[0]}; expected 0..{length - 1}")
    if len(source) not in (1, len(target)):
        raise InputError(f"{len(source)} sources for {len(target)} targets; expected 1 or as many")
    target.check()
    source.check()
    name = "values" if target.indices is None else "indices"
    codes = getattr(target, name).clone()
    places = torch.tensor(list(positions), dtype=torch.int64)
    codes[:, places] = getattr(source, name)[:, places].to(codes)
    return replace(target, **{name: codes})


def noise_scale(step: int, steps: int) -> float:
    """1 -> 0 as half a cosine that ends at two thirds of the steps."""
    share = min(1.0, max(0.0, 1.5 * step / max(1, steps - 1)))
    return 0.5 * (1 + math.cos(math.pi * share))


def optimize(
    tokenizer: Tokenizer,
    objective: Objective,
    start: Tensor | Tokens,
    config: EditConfig | None = None,
    *,
    condition: Condition | None = None,
    noise: Sequence[Tensor] | None = None,
    reset: Callable[[Step], Tensor | None] | None = None,
    callback: Callable[[Step], bool | None] | None = None,
) -> Edited:
    """Move the tokens of images so that `objective` of their decoding falls; samples are
    independent of each other.

    Args:
        start: pixels [B, 3, H, W] in 0..1, or Tokens.
        noise: [B, N, D] of each step, instead of keyed draws.
        reset: may return tokens [B, N, D] that replace the current ones (Adam's moments stay).
        callback: sees every step; True stops.
    Raises ValueError for a start that does not fit, and for an objective of another shape.
    """
    config = config or EditConfig()
    with without_gradients(tokenizer), evaluating(tokenizer), torch.enable_grad():
        return _optimize(tokenizer, objective, start, config, condition, noise, reset, callback)


def _optimize(tokenizer, objective, start, config, condition, noise, reset, callback) -> Edited:
    seed, grid = _start(tokenizer, start, config.after_quantizer, condition)
    live = seed.clone().requires_grad_()
    average = None
    optimizer = torch.optim.Adam([live], lr=config.lr)
    reference = seed if config.pull_to == "seed" else torch.zeros_like(seed)
    rng, losses = Rng(config.seed, "editing"), []
    for number in range(config.steps):
        if config.noise:
            sampled = _noise(rng, number, live) if noise is None else noise[number].to(live)
            with torch.no_grad():
                live += config.noise * noise_scale(number, config.steps) * sampled
        pixels = _decode(tokenizer, live, grid, config.after_quantizer, condition)
        loss = objective(pixels)
        if loss.shape != (len(live),):
            raise InputError(
                f"the objective gave shape {tuple(loss.shape)}; expected one loss for each of "
                f"{len(live)} images"
            )
        total = loss
        if config.pull:
            total = loss + config.pull * (live - reference).square().flatten(1).mean(1)
        optimizer.zero_grad()
        total.sum().backward()
        optimizer.step()
        now = live.detach()
        average = now.clone() if average is None else average.lerp_(now, 1 - config.ema)
        losses.append(loss.detach())
        step = Step(number, average.clone(), pixels.detach(), loss.detach())
        if reset is not None and (given := reset(step)) is not None:
            with torch.no_grad():
                live.copy_(given)
        if callback is not None and callback(step):
            break
    _check_finite(losses, average)
    with torch.no_grad():
        pixels = _decode(tokenizer, average, grid, config.after_quantizer, condition).clamp(0, 1)
        tokens = None if config.after_quantizer else _tokens(tokenizer, average, grid)
    return Edited(pixels, average, torch.stack(losses), tokens)


def _check_finite(losses: Sequence[Tensor], values: Tensor) -> None:
    """NonFiniteError if an optimization ran away; looked at once, since looking waits for a GPU."""
    broken = ~torch.stack(losses).isfinite().all(1)
    if broken.any() or not values.isfinite().all():
        step = int(broken.int().argmax()) if broken.any() else len(losses) - 1
        raise NonFiniteError(
            f"step {step} of the edit: numbers are not finite; expected a loss that falls: lower "
            "lr, noise or pull"
        )


def _noise(rng: Rng, step: int, like: Tensor) -> Tensor:
    keyed = Rng(rng.seed, rng.part, step)
    return keyed.normal(torch.arange(len(like)), tuple(like.shape[1:])).to(like)


def _start(tokenizer, start, after_quantizer: bool, condition) -> tuple[Tensor, tuple[int, ...]]:
    """Tensor to be optimized [B, N, D], and the latents' grids."""
    grid = tokenizer.encoder.grids
    with torch.no_grad():
        if isinstance(start, Tokens):
            start.check()
            if start.spec != tokenizer.spec():
                raise InputError(
                    f"tokens of {start.spec.blocks} {start.spec.vocab}; this tokenizer's are "
                    f"{tokenizer.spec().blocks} {tokenizer.spec().vocab}: encode with it"
                )
            values = tokenizer.pad(tokenizer.values(start))
            if not after_quantizer and values.shape[-1] != tokenizer.quantizer.latent_dim:
                raise InputError(
                    f"tokens give code vectors of width {values.shape[-1]}, the quantizer reads "
                    f"{tokenizer.quantizer.latent_dim}; start from pixels, or use after_quantizer"
                )
            return values.float().clone(), grid
        tokenizer.check_pixels(start)
        latents = tokenizer.latents(start.to(next(tokenizer.parameters())), condition)
        if after_quantizer:
            return tokenizer.quantize(latents).values.detach().float().clone(), grid
        return latents.values.detach().float().clone(), grid


def _decode(tokenizer, values: Tensor, grid, after_quantizer: bool, condition) -> Tensor:
    if not after_quantizer:
        values = tokenizer.quantize(Latents(values, grid)).values
    present = tokenizer.present(None, len(values), values.device)
    estimate = tokenizer.reconstruct(values, present, condition).estimate
    return tokenizer.output_space.inverse(estimate)


def _tokens(tokenizer, values: Tensor, grid) -> Tokens | None:
    quantized = tokenizer.quantize(Latents(values, grid))
    return None if quantized.indices is None else tokenizer.tokens(quantized)


# -- objectives -----------------------------------------------------------------------------------


def match(target: Tensor, mask: Tensor | None = None) -> Objective:
    """Mean squared difference to `target` [B, 3, H, W]; where `mask` (1 = counts) is given, of
    known pixels only: inpainting."""
    mask = torch.ones_like(target[:1, :1]) if mask is None else mask

    def objective(pixels: Tensor) -> Tensor:
        return ((pixels - target.to(pixels)) * mask.to(pixels)).square().flatten(1).mean(1)

    return objective


def weighted(*terms: tuple[float, Objective]) -> Objective:
    """A weighted sum of objectives."""
    return lambda pixels: sum(weight * term(pixels) for weight, term in terms)


def inpaint(
    tokenizer: Tokenizer,
    pixels: Tensor,
    mask: Tensor,
    config: EditConfig | None = None,
    *,
    paste: bool = True,
    every: int = 0,
    condition: Condition | None = None,
) -> Edited:
    """Fill the pixels that `mask` [B or 1, 1, H, W] marks 0 from those that it marks 1.

    Starts from the image with grey holes. `every` > 0: so often the tokens are set to those of
    the known pixels and the current fill together. `paste` puts the known pixels back at the end.
    """
    if every < 0:
        raise InputError(f"every={every}: expected 0 (never) or a number of steps")
    if mask.shape[-2:] != pixels.shape[-2:] or mask.shape[1] != 1:
        raise InputError(
            f"mask has shape {tuple(mask.shape)}; expected [B or 1, 1, "
            f"{pixels.shape[-2]}, {pixels.shape[-1]}] with 1 for known pixels"
        )
    mask = mask.to(pixels)
    config = config or EditConfig()
    holes = pixels * mask + 0.5 * (1 - mask)

    def composite(step: Step) -> Tensor | None:
        if not every or (step.number + 1) % every or step.number + 1 == config.steps:
            return None
        mixed = pixels * mask + step.pixels.clamp(0, 1) * (1 - mask)
        return _start(tokenizer, mixed, config.after_quantizer, condition)[0]

    aim = match(pixels, mask)
    found = optimize(tokenizer, aim, holes, config, condition=condition, reset=composite)
    if not paste:
        return found
    return replace(found, pixels=pixels * mask + found.pixels * (1 - mask))
