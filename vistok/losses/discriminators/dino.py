"""Discriminator on a frozen DINO ViT (VAR's and ImageFolder's, after StyleGAN-T, arXiv 2301.09515).

Light heads judge the patch tokens of several depths, each with the class token added. Half of the
batches in training are random crops at full resolution, the others are resized.
Letters: B batch, L patches, D width, R readouts.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.frozen.vit import FrozenViT, FrozenViTConfig
from vistok.layers.resize import resize
from vistok.losses.discriminators.spectral import CircularConv1d, SpectralConv1d
from vistok.runtime.precision import no_autocast

DINO = FrozenViTConfig(network="dino-s16", mlp="gelu_tanh", zero_key_bias=True)


class DinoDiscriminatorConfig(Config):
    kind: Literal["dino"] = "dino"
    network: FrozenViTConfig = DINO
    """The frozen network. Its image_size is the side that crops and resized images have."""
    readouts: tuple[Annotated[int, Field(ge=0, le=512)], ...] = Field(
        default=(0, 3, 6, 9, 12), min_length=1, max_length=64
    )
    """Numbers of the blocks whose states are judged, ascending; 0 = before the first block."""
    kernel: int = Field(default=9, ge=1, le=255)
    """Positions that the residual layer of a head sees; odd."""
    spectral_norm: bool = True
    norm: Literal["virtual_batch", "batch", "group"] = "virtual_batch"
    """virtual_batch: statistics of groups of consecutive images of this process; batch: of the
    whole batch, over processes on GPUs; group: of 32 groups of channels of one image."""
    norm_eps: float = Field(default=1e-6, gt=0)
    group: int = Field(default=8, ge=1, le=2**16)
    """Images of a group of the virtual batch norm, at most; groups are of equal size."""
    crop: float = Field(default=0.5, ge=0, le=1)
    """Probability that images larger than the network's square are cropped instead of resized."""

    @model_validator(mode="after")
    def _fits(self) -> DinoDiscriminatorConfig:
        depth = self.network.shape.depth
        if list(self.readouts) != sorted(set(self.readouts)) or self.readouts[-1] > depth:
            raise InputError(
                f"readouts={list(self.readouts)}: expected ascending numbers of blocks, 0..{depth}"
            )
        if self.kernel % 2 == 0:
            raise InputError(f"kernel={self.kernel} is even; expected an odd number")
        if self.norm == "group" and self.network.shape.width % 32:
            raise InputError(
                f"norm=group makes 32 groups of {self.network.shape.width} channels; expected a "
                "multiple of 32, or another norm"
            )
        return self

    @classmethod
    def tiny(cls) -> DinoDiscriminatorConfig:
        return cls(network=FrozenViTConfig.tiny(), readouts=(0, 2), kernel=3)


class VirtualBatchNorm(nn.Module):
    """Batch norm over groups of consecutive samples, so that its batch is small: [B, D, L] -> same.

    ceil(B / size) groups; mean and biased variance over a group's samples and positions, in fp32.
    Groups never span processes.
    """

    def __init__(self, width: int, size: int, eps: float) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        groups = math.ceil(len(x) / self.size)
        normed = []
        for group in x.float().tensor_split(groups):
            variance, mean = torch.var_mean(group, (0, 2), correction=0, keepdim=True)
            normed.append((group - mean) / torch.sqrt(variance + self.eps))
        return torch.cat(normed) * self.weight[:, None] + self.bias[:, None]


class Residual(nn.Module):
    """(x + fn(x)) / sqrt(2)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return (self.fn(x) + x) * 2**-0.5


@register("discriminator", DinoDiscriminatorConfig)
class DinoDiscriminator(nn.Module):
    """[B, 3, H, W] in 0..1 -> logits [B, R * L]. The heads' state has the official names."""

    separate = True
    """Its norms look at the batch, so that real and fake images are never in one."""
    uniforms = 3
    """Numbers that a pass in training samples: to crop or not, row, column."""

    def __init__(self, config: DinoDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.network = FrozenViT(config.network)
        width = self.network.dim
        self.heads = nn.ModuleList(
            nn.Sequential(
                self._block(width, 1),
                Residual(self._block(width, config.kernel)),
                self._conv(width, 1, 1),
            )
            for _ in config.readouts
        )

    def _conv(self, inside: int, outside: int, kernel: int) -> nn.Module:
        made = SpectralConv1d if self.config.spectral_norm else CircularConv1d
        return made(inside, outside, kernel)

    def _block(self, width: int, kernel: int) -> nn.Sequential:
        config = self.config
        norm = {
            "virtual_batch": lambda: VirtualBatchNorm(width, config.group, config.norm_eps),
            "batch": lambda: nn.BatchNorm1d(width, eps=config.norm_eps),
            "group": lambda: nn.GroupNorm(32, width, eps=config.norm_eps),
        }[config.norm]()
        return nn.Sequential(self._conv(width, width, kernel), norm, nn.LeakyReLU(0.2))

    def forward(self, pixels: Tensor, uniform: Tensor | None = None) -> Tensor:
        """
        Args:
            uniform: [B, 3] in [0, 1) of this pass, equal for all images to have the original's
                choice for the whole batch; None = images are resized.
        """
        acts = self.readouts(self.square(pixels, uniform))
        return torch.cat([head(x).flatten(1) for head, x in zip(self.heads, acts, strict=True)], 1)

    def square(self, pixels: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Pixels in 0..1 -> the network's square, normalized: cropped, or resized by area averages
        (bicubic where they must grow)."""
        side = self.config.network.image_size
        with no_autocast(pixels.device):
            x = (pixels.float() - self.network.mean) / self.network.std
            height, width = x.shape[-2:]
            resized = resize(x, side, "area" if height > side else "bicubic", antialias=False)
            if uniform is None or not self.config.crop or min(height, width) <= side:
                return resized
            cropped = crops(x, side, uniform[:, 1], uniform[:, 2])
            return torch.where(
                (uniform[:, 0] <= self.config.crop)[:, None, None, None], cropped, resized
            )

    def readouts(self, x: Tensor) -> list[Tensor]:
        """Normalized squares -> patch tokens plus class token at each depth, [B, D, L] float32."""
        states = self.network.tapped(x, self.config.readouts)[1]
        found = (states[number].float() for number in self.config.readouts)
        return [(y[:, 1:] + y[:, :1]).transpose(1, 2) for y in found]


def crops(x: Tensor, side: int, row: Tensor, column: Tensor) -> Tensor:
    """Squares of images [B, C, H, W] at places given by numbers [B] in [0, 1)."""
    cells = torch.arange(side, device=x.device)
    start = lambda u, length: (u * (length - side + 1)).floor().long().clamp(max=length - side)
    rows = (start(row, x.shape[-2])[:, None] + cells)[:, :, None]
    columns = (start(column, x.shape[-1])[:, None] + cells)[:, None, :]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return x[image, :, rows, columns].permute(0, 3, 1, 2)
