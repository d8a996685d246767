"""Encoders side by side: each reads the image, and their latents lie beside each other on channels
(TokenFlow, arXiv 2412.03069: a semantic and a pixel branch).

Letters: B batch, N latents, D width of a latent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.encoders.cnn import CNNEncoderConfig
from vistok.encoders.vision_tower import TowerEncoderConfig
from vistok.frozen.hf import CLIP_STATISTICS
from vistok.frozen.network import IMAGENET_STATISTICS
from vistok.layers.resize import resize

_STATISTICS = {
    "clip": CLIP_STATISTICS,
    "imagenet": IMAGENET_STATISTICS,
    "half": ((0.5,) * 3, (0.5,) * 3),
}


class BranchConfig(Config):
    """One encoder, and what it reads."""

    encoder: Annotated[Any, PartOf("encoder")] = CNNEncoderConfig()
    dim: int | None = Field(default=None, ge=1, le=2**14)
    """Channels of its latents; null = an equal share of those that the others leave."""
    image_size: int | None = Field(default=None, ge=1, le=2**14)
    """Side of the square that it reads, to which its input is resized (bicubic, without
    antialiasing); null = as it comes."""
    statistics: Literal["clip", "imagenet", "half"] | None = None
    """Mean and standard deviation to which pixels of -1..1 are normalized anew, cut to that range
    before; null = they stay as they come."""


class BranchesConfig(Config):
    kind: Literal["branches"] = "branches"
    branches: tuple[BranchConfig, ...] = Field(
        default=(BranchConfig(encoder=TowerEncoderConfig()), BranchConfig()),
        min_length=1,
        max_length=16,
    )
    """In the order of their channels; their latents lie on the same grids."""

    @classmethod
    def tiny(cls) -> BranchesConfig:
        tower = BranchConfig(encoder=TowerEncoderConfig.tiny(), dim=1, statistics="clip")
        return cls(branches=(tower, BranchConfig(encoder=CNNEncoderConfig.tiny(), image_size=8)))


@register("encoder", BranchesConfig)
class BranchesEncoder(Encoder):
    def __init__(self, config: BranchesConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space, images. dim: D, of all branches together.
        """
        super().__init__()
        self.config = config
        if shape.is_clip:
            raise InputError(
                f"kind=branches takes images, not clips of {shape.frames} frames; use one encoder"
            )
        self.branches = nn.ModuleList(
            _Branch(branch, shape, own)
            for branch, own in zip(config.branches, _widths(config.branches, dim), strict=True)
        )
        self.grids = self.branches[0].encoder.grids
        for number, branch in enumerate(self.branches):
            if branch.encoder.counted:
                raise InputError(
                    f"encoder.branches: kind={config.branches[number].encoder.kind} of branch "
                    f"{number} makes another number of latents of each sample; expected an encoder "
                    "of a grid, such as cnn or vit"
                )
            if branch.encoder.grids != self.grids or branch.encoder.stored is not None:
                raise InputError(
                    f"encoder.branches: latents of branch {number} lie on {branch.encoder.grids}, "
                    f"those of the first on {self.grids}; expected one grid: change its image_size"
                )

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] -> latents [B, N, D]; taps of branch 0 are called 0.NAME."""
        found = [branch(x, condition) for branch in self.branches]
        features = {
            f"{number}.{name}": rows
            for number, latents in enumerate(found)
            for name, rows in latents.features.items()
        }
        values = torch.cat([latents.values for latents in found], dim=-1)
        return Latents(values, self.grids, features)


class _Branch(nn.Module):
    def __init__(self, config: BranchConfig, shape: Shape, dim: int) -> None:
        super().__init__()
        self.side = config.image_size
        sides = shape.sides if self.side is None else (self.side, self.side)
        self.encoder = build(config.encoder, Shape(shape.channels, sides), dim)
        self.renormalized = config.statistics is not None
        if self.renormalized:
            if shape.channels != 3:
                raise InputError(
                    f"encoder.branches: statistics={config.statistics} are of 3 channels, and the "
                    f"input space has {shape.channels}; leave them out"
                )
            for name, numbers in zip(("mean", "std"), _STATISTICS[config.statistics], strict=True):
                self.register_buffer(name, torch.tensor(numbers)[:, None, None], persistent=False)

    def normalized(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] of the input space, with the statistics that the encoder is for."""
        if not self.renormalized:
            return x
        return (((x + 1) * 127.5).clamp(0, 255) / 255 - self.mean) / self.std

    def forward(self, x: Tensor, condition: Condition | None) -> Latents:
        x = self.normalized(x)
        if self.side is not None:
            x = resize(x, self.side, "bicubic", antialias=False)
        return self.encoder(x, condition)


def _widths(branches: tuple[BranchConfig, ...], dim: int) -> list[int]:
    """Channels of each branch, together `dim`; ConfigError if they are not."""
    given = [branch.dim for branch in branches]
    rest, sharing = dim - sum(own for own in given if own is not None), given.count(None)
    each, left = divmod(rest, max(sharing, 1))
    if left or (each < 1 if sharing else rest):
        raise ConfigError(
            f"encoder.branches: dim={given}, and the quantizer reads {dim} channels; expected "
            "numbers that add up to it, null for equal shares of what the others leave"
        )
    return [each if own is None else own for own in given]
