"""Differentiable augmentation of what a discriminator sees (DiffAugment, arXiv 2006.10738).

Translation, color and cutout, as StyleGAN-T, VAR and ImageFolder have them. Each is switched on for
a whole batch at once; its strength is drawn for every image. A pass over images takes ten numbers
per image, sampled outside.
Letters: B batch, H W pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vistok.config import Config

GATES, STRENGTHS = 3, 7
UNIFORMS = GATES + STRENGTHS
"""Numbers of a pass: gates of translation, color and cutout (equal for all images of a batch), then
translation y and x, brightness, saturation, contrast, cutout y and x."""


class DiffAugConfig(Config):
    prob: float = Field(default=1.0, ge=0, le=1)
    """Probability of each of the three, per batch."""
    translation: float = Field(default=0.125, ge=0, le=1)
    """Largest shift as a share of a side; zeros come in."""
    color: bool = True
    """Brightness +-0.5 (of a range of 2), saturation x 0..2, contrast x 0.5..1.5."""
    first: Literal["translation", "color"] = "translation"
    """The one of the two that comes first; color first sees no zeros at the borders (VFRTok)."""
    cutout: float = Field(default=0.2, ge=0, le=1)
    """Side of the rectangle that is set to zero, as a share of the image's; 0 = none (the
    original's negative prob)."""


def augment(x: Tensor, uniform: Tensor, config: DiffAugConfig) -> Tensor:
    """Images in -1..1 [B, 3, H, W], where 0 is gray -> the same, augmented; float32.

    Args:
        uniform: [B, 10] in [0, 1). A gate is open where its number <= prob.
    """
    x, gates = x.float(), (uniform[:, :GATES] <= config.prob)[:, :, None, None, None]
    u = uniform[:, GATES:]
    if config.color and config.first == "color":
        x = torch.where(gates[:, 1], colored(x, u[:, 2], u[:, 3], u[:, 4]), x)
    if config.translation:
        x = torch.where(gates[:, 0], translated(x, u[:, 0], u[:, 1], config.translation), x)
    if config.color and config.first == "translation":
        x = torch.where(gates[:, 1], colored(x, u[:, 2], u[:, 3], u[:, 4]), x)
    if config.cutout:
        x = torch.where(gates[:, 2], cut(x, u[:, 5], u[:, 6], config.cutout), x)
    return x


def translated(x: Tensor, down: Tensor, right: Tensor, share: float) -> Tensor:
    """Images shifted by whole pixels, up to round(share * side) either way: down, right [B]."""
    places = []
    for u, length in ((down, x.shape[-2]), (right, x.shape[-1])):
        most = round(length * share)
        shift = (u * (2 * most + 1)).floor().long() - most
        place = torch.arange(length, device=x.device) + shift[:, None] + 1
        places.append(place.clamp(0, length + 1))  # in the image with a border of zeros
    image = torch.arange(len(x), device=x.device)[:, None, None]
    bordered = F.pad(x, (1, 1, 1, 1))
    shifted = bordered[image, :, places[0][:, :, None], places[1][:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def colored(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images with other brightness, saturation and contrast, in this order; numbers [B] each."""
    brightness, saturation, contrast = (
        u[:, None, None, None] for u in (brightness, saturation, contrast)
    )
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = (x - gray) * (2 * saturation) + gray
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def cut(x: Tensor, down: Tensor, right: Tensor, share: float) -> Tensor:
    """Images with a rectangle of zeros around a place [B]; parts beyond the border are lost."""
    kept = None
    for axis, u in ((-2, down), (-1, right)):
        length = x.shape[axis]
        size = round(length * share)
        offset = (u * (length + (1 - size % 2))).floor().long() - size // 2
        first, last = offset.clamp(0, length - 1), (offset + size - 1).clamp(0, length - 1)
        place = torch.arange(length, device=x.device)
        inside = (place >= first[:, None]) & (place <= last[:, None]) & (size > 0)
        inside = inside[:, :, None] if axis == -2 else inside[:, None, :]
        kept = inside if kept is None else kept & inside
    return x * ~kept[:, None]


def fade(step: int, start: int, steps: int) -> float:
    """Strength of the blur of a GAN's first steps: 1 until `start`, then linear to 0 over `steps`
    (VAR's aug_fade_steps)."""
    if step < start:
        return 1.0
    return 1.0 - min(1.0, (step - start) / (steps + 1))


def blurred(x: Tensor, strength: float) -> Tensor:
    """Images [B, C, H, W] behind a Gaussian of width strength * sqrt(H / 2) pixels, borders
    reflected; unchanged where that is less than a third of a pixel.

    The Gaussian is 2^-(distance / width)^2, cut at three widths.
    """
    if strength < 1e-6:
        return x
    width = (x.shape[-2] * 0.5) ** 0.5 * strength
    reach = min(math.floor(3 * width), min(x.shape[-2:]) - 1)
    if reach < 1:
        return x
    x = x.float()
    place = torch.arange(-reach, reach + 1, dtype=torch.float32, device=x.device)
    line = torch.exp2(-((place / width) ** 2))
    line = (line / line.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(x, line.mT, groups=x.shape[1]), line, groups=x.shape[1])
