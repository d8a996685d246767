"""ViTamin-XL of 256 pixels (arXiv 2404.02132), frozen: TokenFlow's teacher `vitamin_xlarge_256`.

A `vistok.layers.vision_tower` that reads timm's weights. Its features are the states behind the
last block, without a norm, as timm's `forward_features` gives them.
Letters: B batch, n cells of 16 pixels, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.files import fitted, hollow, read_state
from vistok.frozen.hf import CLIP_STATISTICS
from vistok.frozen.network import VisionFeatures, VisionNetwork
from vistok.frozen.preset_files import PresetFiles
from vistok.layers.mbconv import STRIDE, MbConvConfig
from vistok.layers.resize import resize
from vistok.layers.transformer import TransformerConfig
from vistok.layers.vision_tower import VisionTower, VisionTowerConfig
from vistok.storage.weights import sha256

_FILES = PresetFiles(
    "vitamin",
    ("vitamin_xlarge_256.datacomp1b_clip/model.safetensors", "ViTamin-XL-256px/model.safetensors"),
    "timm/vitamin_xlarge_256.datacomp1b_clip",
)
_HEAD = ("head.", "fc_norm.", "norm.")  # of pooled features, which nothing here reads
TOWER = VisionTowerConfig(
    patch=STRIDE,
    stem=MbConvConfig(),
    positions=None,
    class_token=False,
    norm_in=False,
    mlp_norm=True,
    transformer=TransformerConfig(
        **{"width": 1152, "depth": 32, "heads": 16, "mlp": "geglu", "mlp_ratio": 2.0},
        **{"norm_eps": 1e-6, "norm_out": False},
    ),
)
_LAYER = {
    "norm1": "norm_attention",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "norm_mlp.0",
    "mlp.norm": "norm_mlp.1",
    "mlp.w0": "mlp.gate",
    "mlp.w1": "mlp.up",
    "mlp.w2": "mlp.out",
}
_MBCONV = {
    "pre_norm": "norm",
    "conv1_1x1": "widen",
    "conv2_kxk": "depthwise",
    "conv3_1x1": "narrow",
}


def vitamin_names(tower: VisionTowerConfig) -> dict[str, str]:
    """Names of a tower's tensors -> timm's."""
    stem, place = tower.stem, "patch_embed.backbone"
    layers = {f"patches.{name}": f"{place}.stem.{name}" for name in ("conv1", "norm1", "conv2")}
    layers |= {f"patches.{name}": f"{place}.pool.{name}" for name in ("norm", "proj")}
    widths = (stem.stem, *stem.channels)
    for stage, count in enumerate(stem.blocks):
        for block in range(count):
            at = f"stages.{stage}.{block}"
            layers |= {f"patches.{at}.{o}": f"{place}.{at}.{t}" for t, o in _MBCONV.items()}
        if widths[stage] != widths[stage + 1]:
            at = f"stages.{stage}.0.shortcut"
            layers[f"patches.{at}.conv"] = f"{place}.{at}.expand"
    for number in range(tower.transformer.depth):
        ours, theirs = f"transformer.blocks.{number}", f"blocks.{number}"
        layers |= {f"{ours}.{o}": f"{theirs}.{t}" for t, o in _LAYER.items()}
    kinds = ("weight", "bias")
    return {f"{ours}.{k}": f"{theirs}.{k}" for ours, theirs in layers.items() for k in kinds}


class ViTaminConfig(Config):
    kind: Literal["vitamin"] = "vitamin"
    weights: str | None = None
    """A file in timm's layout, or its folder; null = $VISTOK_WEIGHTS or the usual download."""
    image_size: int = Field(default=256, ge=STRIDE, le=2**14)
    """Side of the square that the network sees."""


@register("vision", ViTaminConfig)
class ViTamin(VisionNetwork):
    """Patches are the states of its cells; the pooled vector is their mean."""

    def __init__(self, config: ViTaminConfig) -> None:
        """Raises MissingWeights or BadWeights in one line; on the meta device no file is read."""
        if config.image_size % STRIDE:
            raise InputError(
                f"vitamin: image_size={config.image_size} is no multiple of {STRIDE}; expected one"
            )
        path = None if hollow() else _FILES.find(config.weights)
        super().__init__("vitamin", "" if path is None else sha256(path))
        self.side = config.image_size
        self.grid = (self.side // STRIDE,) * 2
        with torch.device("meta"):
            self.tower = VisionTower(TOWER, Shape(3, (self.side, self.side)))
        if path is not None:
            state = read_state(path, self.name)
            state = {key: one for key, one in state.items() if not key.startswith(_HEAD)}
            names = vitamin_names(TOWER)
            own = self.tower.state_dict()
            expected = {theirs: own[ours] for ours, theirs in names.items()}
            found = fitted(expected, state, f"{self.name}: {path}")
            self.tower.load_state_dict({o: found[t] for o, t in names.items()}, assign=True)
        inner = TOWER.transformer
        self.dim = self.pooled_dim = inner.width
        self.depth = inner.depth
        self.preprocess = f"bicubic, antialiased, to {self.side}; CLIP mean and std"
        for name, values in zip(("mean", "std"), CLIP_STATISTICS, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.freeze()

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        """As in `VisionNetwork`; at the depth of its last block, or null."""
        self.check_depth(depth)
        if depth not in (None, self.depth):
            raise InputError(f"vitamin: depth={depth}; expected null, the output of the last block")
        x = (resize(pixels, self.side, "bicubic", antialias=True) - self.mean) / self.std
        patches = self.tower(x)
        return VisionFeatures(patches.mean(1), patches, self.grid)
