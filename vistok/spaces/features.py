"""Features of a frozen vision network, frame by frame: what an encoder reads or a decoder gives.

Divot (arXiv 2412.04432) reads CLIP's patch features of each frame, semantic tokenizers those of an
image. SEED (arXiv 2310.01218) decodes into the one feature of a whole image, of which another
decoder makes pixels: `decoder`, which learns in a stage of its own. Without one nothing leads back
to pixels, and tokenizer.output_space is another space.
Letters: B batch, D width of a feature, T frames, h w cells of the network's grid.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.vision import EmbeddedVisionConfig, NamedNetwork, named
from vistok.layers.frames import frames, unfold
from vistok.spaces.base import Space
from vistok.spaces.pixels import Pixels, PixelsConfig
from vistok.storage.hollow import whole


class FeaturesConfig(Config):
    kind: Literal["features"] = "features"
    network: Annotated[Any, PartOf("vision")] = EmbeddedVisionConfig()
    """A name (dinov2-b, clip, siglip, vistok-cnn) or a config of the family vision."""
    depth: int | None = Field(default=None, ge=1, le=512)
    """Block whose raw states are taken; null = the network's output."""
    norm: bool = False
    """Parameter-free LayerNorm of each feature (eps 1e-5)."""
    pooled: bool = False
    """One feature of the whole image, on a grid of 1 x 1, instead of one for each cell."""
    decoder: Annotated[Any, PartOf("decoder")] | None = None
    """The way from features to pixels, of an output space; null: there is none, and this is an
    input space alone."""
    pixels: PixelsConfig = PixelsConfig()
    """Scale of the pixels that the decoder makes."""

    @model_validator(mode="after")
    def _of_one_output(self) -> FeaturesConfig:
        if self.pooled and self.depth is not None:
            raise InputError(
                f"pooled=true with depth={self.depth}: the feature of the whole image is the "
                "network's output; leave depth out"
            )
        return self

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
    """Unless its config has a decoder."""

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
        if config.pooled:
            self.shape = Shape(seen.pooled.shape[-1], (*time, 1, 1))
        self.reads_only, self.decoder = config.decoder is None, None
        if config.decoder is not None:
            grid = self.shape.sides
            self.decoder = build(config.decoder, shape, (grid,), self.shape.channels)
            self.pixels = Pixels(config.pixels, shape)

    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        """pixels [B, 3, (T,) H, W] in 0..1 -> [B, D, (T,) h, w]."""
        seen = self.network.look(frames(pixels.float()), self.config.depth)
        rows = seen.pooled[:, None] if self.config.pooled else seen.patches
        if self.config.norm:
            rows = F.layer_norm(rows.float(), rows.shape[-1:])
        maps = rows.unflatten(1, self.shape.sides[-2:]).movedim(-1, 1)  # [B*T, D, h, w]
        return maps if pixels.ndim == 4 else unfold(maps, len(pixels))

    def inverse(self, y: Tensor) -> Tensor:
        """y [B, D, (T,) h, w] -> pixels [B, 3, (T,) H, W], unclamped."""
        if self.decoder is None:
            raise InputError(
                "kind 'features' without a decoder is an input space only; set "
                "tokenizer.output_space to pixels or vae, or give it a decoder"
            )
        return self.pixels.inverse(self.decoder(y.flatten(2).transpose(1, 2)).estimate)
