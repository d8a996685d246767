"""Features of a frozen vision network, frame by frame: an input space.

Divot (arXiv 2412.04432) reads CLIP's patch features of each frame, semantic tokenizers those of an
image. Nothing leads back to pixels: tokenizer.output_space is another space.
Letters: B batch, D width of a feature, T frames, h w cells of the network's grid.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.vision import EmbeddedVisionConfig, NamedNetwork, named
from vistok.layers.frames import frames, unfold
from vistok.spaces.base import Space
from vistok.storage.hollow import whole


class FeaturesConfig(Config):
    kind: Literal["features"] = "features"
    network: Annotated[Any, PartOf("vision")] = EmbeddedVisionConfig()
    """A name (dinov2-b, clip, siglip, vistok-cnn) or a config of the family vision."""
    depth: int | None = Field(default=None, ge=1, le=512)
    """Block whose raw states are taken; null = the network's output."""
    norm: bool = False
    """Parameter-free LayerNorm of each feature (eps 1e-5)."""

    @field_validator("network", mode="before", json_schema_input_type=NamedNetwork)
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named(value)

    @classmethod
    def tiny(cls) -> FeaturesConfig:
        return cls()


@register("space", FeaturesConfig)
class FeatureSpace(Space):
    reads_only = True

    def __init__(self, config: FeaturesConfig, shape: Shape) -> None:
        super().__init__()
        with whole():  # it loads weights of its own, whoever builds the tokenizer
            self.config, self.network = config, build(config.network)
        device = next(self.network.parameters()).device
        with torch.no_grad():
            seen = self.network.look(
                torch.zeros(1, 3, *shape.image_size, device=device), config.depth
            )
        time = (shape.frames,) if shape.is_clip else ()
        self.shape = Shape(seen.patches.shape[-1], (*time, *seen.grid))

    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        """pixels [B, 3, (T,) H, W] in 0..1 -> [B, D, (T,) h, w]."""
        seen = self.network.look(frames(pixels.float()), self.config.depth)
        patches = seen.patches
        if self.config.norm:
            patches = F.layer_norm(patches.float(), patches.shape[-1:])
        maps = patches.unflatten(1, seen.grid).movedim(-1, 1)  # [B*T, D, h, w]
        return maps if pixels.ndim == 4 else unfold(maps, len(pixels))

    def inverse(self, y: Tensor) -> Tensor:
        raise InputError(
            "kind 'features' is an input space only; set tokenizer.output_space to pixels or vae"
        )
