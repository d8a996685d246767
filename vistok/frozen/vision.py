"""Vision networks that tokenizers are aligned with: ViTs, CLIP, SigLIP, ViTamin, vistok-cnn.

All give a pooled vector and patch features at a chosen depth (`VisionNetwork.look`). They are parts
of the family `vision`; a string names one of them with its defaults, so that `network: dinov2-b`
and `network: {kind: vit, network: dinov2-b}` mean the same.
Letters: B batch, h w cells of a grid, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config, PartOf
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.frozen.embedded import EmbeddedFeatures
from vistok.frozen.hf import CLIP_STATISTICS, Home
from vistok.frozen.network import IMAGENET_STATISTICS, VisionFeatures, VisionNetwork
from vistok.frozen.vit import RELEASES
from vistok.frozen.vitamin import ViTaminConfig
from vistok.layers.resize import resize

_OTHERS = ("clip", "siglip", ViTaminConfig().kind, "vistok-cnn")
NAMES = (*RELEASES, *_OTHERS)

_CLIP = Home(
    "clip",
    "openai/clip-vit-base-patch16",
    "CLIPVisionModel",
    "CLIPVisionConfig",
    {"patch_size": 16},
)
_CLIP_HUGE = Home(
    "clip-h",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "CLIPVisionModel",
    "CLIPVisionConfig",
    {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "projection_dim": 1024,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
)
_SIGLIP = Home(
    "siglip", "google/siglip-base-patch16-224", "SiglipVisionModel", "SiglipVisionConfig", {}
)
_SIGLIP_LARGE = Home(
    "siglip-so400m",
    "google/siglip-so400m-patch14-384",
    "SiglipVisionModel",
    "SiglipVisionConfig",
    {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 384,
    },
)


NamedNetwork = Literal[*NAMES] | Annotated[Any, PartOf("vision")] | None
"""How a config may name a vision network, for its schema."""


def named(value: Any) -> Any:
    """The config that a string names, as plain data; anything else stays as it is.

    Raises ValueError for an unknown name.
    """
    if not isinstance(value, str):
        return value
    if value in RELEASES:
        return {"kind": "vit", "network": value}
    if value in _OTHERS:
        return {"kind": value}
    raise InputError(f"'{value}' is no vision network; expected one of {', '.join(NAMES)}")


class EmbeddedVisionConfig(Config):
    """The network that is shipped with vistok; works offline."""

    kind: Literal["vistok-cnn"] = "vistok-cnn"
    weights: str | None = None
    """Local weights; null = those inside the package."""


@register("vision", EmbeddedVisionConfig)
class EmbeddedVision(VisionNetwork):
    """Maps of vistok-cnn: 4 stages at 32, 16, 8 and 4 cells per side."""

    def __init__(self, config: EmbeddedVisionConfig) -> None:
        network = EmbeddedFeatures(config.weights)
        super().__init__(network.name, network.sha256)
        self.network, self.preprocess = network, network.preprocess
        widths = network.network.config.widths
        self._widths, self.depth = widths, len(widths)
        self.dim, self.pooled_dim = widths[-1], network.dim
        self.freeze()

    def sizes(self, depth: int | None = None) -> tuple[int, int]:
        self.check_depth(depth)
        return (self.dim, self.pooled_dim) if depth is None else (self._widths[depth - 1],) * 2

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        """As in `VisionNetwork`; the pooled vector is that of the last two stages, at a depth the
        mean of that stage's map."""
        self.check_depth(depth)
        maps, pooled = self.network.network.features(pixels)
        chosen = maps[-1 if depth is None else depth - 1]
        patches = chosen.flatten(2).transpose(1, 2)
        if depth is not None:
            pooled = patches.mean(1)
        return VisionFeatures(pooled, patches, tuple(chosen.shape[-2:]))


class _TowerConfig(Config):
    weights: str | None = None
    """A folder of transformers; null = $VISTOK_WEIGHTS or the library's own download."""
    image_size: int | None = Field(default=None, ge=1, le=2**14)
    """Side of the square that the network sees; null = its own. Others interpolate its positions,
    as transformers does."""


class CLIPTowerConfig(_TowerConfig):
    kind: Literal["clip"] = "clip"
    size: Literal["base", "huge"] = "base"
    """base: OpenAI's ViT-B/16; huge: OpenCLIP's ViT-H/14, 1,280 wide (Divot)."""
    statistics: Literal["own", "imagenet"] = "own"
    """Mean and standard deviation that pixels are normalized with; XQ-GAN's detail branch gives
    CLIP images with those of ImageNet."""
    projected: bool = False
    """Patches of the output go through the projection of the image embedding too, to the width that
    images and texts share (TokenFlow)."""


class SigLIPTowerConfig(_TowerConfig):
    kind: Literal["siglip"] = "siglip"
    size: Literal["base", "so400m"] = "base"
    """base: ViT-B/16 at 224 pixels; so400m: So400m/14 at 384, 27 x 27 cells of 1,152 (VQToken)."""


class _Tower(VisionNetwork):
    """The vision half of a model of images and texts, by the transformers library."""

    def __init__(self, home: Home, config: _TowerConfig, statistics: tuple, described: str) -> None:
        network, digest = home.open(config.weights)
        super().__init__(home.network, digest)
        sizes = network.config
        self.network, self.patch = network, sizes.patch_size
        self.side = sizes.image_size if config.image_size is None else config.image_size
        if self.side != sizes.image_size and self.side % self.patch:
            raise InputError(
                f"{self.name}: image_size={self.side} is no multiple of its patches' "
                f"{self.patch}; expected one"
            )
        self.dim = self.pooled_dim = sizes.hidden_size
        self.depth = sizes.num_hidden_layers
        self.preprocess = f"bicubic, antialiased, to {self.side}; {described} mean and std"
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.freeze()

    def run(self, pixels: Tensor, depth: int | None) -> Any:
        """The library's output for pixels in 0..1, with the states of all blocks where asked."""
        self.check_depth(depth)
        x = (resize(pixels, self.side, "bicubic", antialias=True) - self.mean) / self.std
        return self.network(
            pixel_values=x,
            interpolate_pos_encoding=self.side != self.network.config.image_size,
            output_hidden_states=depth is not None,
        )

    @property
    def grid(self) -> tuple[int, int]:
        return (self.side // self.patch,) * 2


@register("vision", CLIPTowerConfig)
class CLIPTower(_Tower):
    """CLIP ViT-B/16 (arXiv 2103.00020) or OpenCLIP ViT-H/14: class token and patches behind the
    last norm."""

    def __init__(self, config: CLIPTowerConfig) -> None:
        own = config.statistics == "own"
        statistics = CLIP_STATISTICS if own else IMAGENET_STATISTICS
        home = _CLIP if config.size == "base" else _CLIP_HUGE
        if config.projected:
            home = replace(home, model="CLIPVisionModelWithProjection")
        super().__init__(home, config, statistics, "CLIP" if own else "ImageNet")
        self.projected = config.projected

    def sizes(self, depth: int | None = None) -> tuple[int, int]:
        if not self.projected or depth is not None:
            return super().sizes(depth)
        return self.network.config.projection_dim, self.pooled_dim

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        output = self.run(pixels, depth)
        if depth is not None:
            states = output.hidden_states[depth]
        elif self.projected:
            states = self.network.vision_model.post_layernorm(output.last_hidden_state)
            patches = self.network.visual_projection(states[:, 1:])
            return VisionFeatures(states[:, 0], patches, self.grid)
        else:
            states = self.network.post_layernorm(output.last_hidden_state)
        return VisionFeatures(states[:, 0], states[:, 1:], self.grid)


@register("vision", SigLIPTowerConfig)
class SigLIPTower(_Tower):
    """SigLIP (arXiv 2303.15343): patches behind the last norm, pooled by its attention head; at a
    depth, which has no head, pooled by their mean."""

    def __init__(self, config: SigLIPTowerConfig) -> None:
        home = _SIGLIP if config.size == "base" else _SIGLIP_LARGE
        super().__init__(home, config, ((0.5,) * 3, (0.5,) * 3), "0.5")

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        output = self.run(pixels, depth)
        if depth is None:
            patches, pooled = output.last_hidden_state, output.pooler_output
        else:
            patches = output.hidden_states[depth]
            pooled = patches.mean(1)
        return VisionFeatures(pooled, patches, self.grid)
