"""Feature networks exactly as published evaluations use them, each under a name of its own.

One network gives different numbers under different resizing, normalization, tokens or position
tables, so a preset fixes all of them; its name stands in every number made with it. Sources and
open questions are in docs/ideas/feature-networks.md.

Letters: B batch, H W pixels, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vistok.frozen.convnext_v2 import ConvNeXtShape, ConvNeXtV2
from vistok.frozen.files import BadWeights, fitted, hollow
from vistok.frozen.hf import CLIP_STATISTICS
from vistok.frozen.network import IMAGENET_STATISTICS, FeatureNetwork, Features
from vistok.frozen.pixels import DESCRIBED, PREPARE
from vistok.frozen.preset_files import PresetFiles
from vistok.frozen.preset_layouts import convnext_names, official_name, vit_names
from vistok.frozen.preset_vit import Positions, PresetViT, ViTShape
from vistok.frozen.vit import RELEASES
from vistok.storage.foreign import read_state
from vistok.storage.weights import WeightsError, content_sha256

HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_STATISTICS = {"ImageNet": IMAGENET_STATISTICS, "CLIP": CLIP_STATISTICS, "0.5": HALVES}
_SET_MEASURES = frozenset({"fid", "kid", "prdc"})


@dataclass(frozen=True)
class Preset:
    """Everything that decides the features of an image."""

    shape: ViTShape | ConvNeXtShape
    side: int  # of the square that the network sees
    prepare: str  # a name of `vistok.frozen.pixels`
    statistics: str  # mean and standard deviation: ImageNet, CLIP or 0.5
    files: PresetFiles
    positions: Positions = "antialias"
    unit: bool = False  # features are divided by their length
    measures: frozenset[str] = _SET_MEASURES

    @property
    def described(self) -> str:
        """The treatment of pixels, as rows carry it."""
        padded = ""
        if isinstance(self.shape, ViTShape) and self.side % self.shape.patch:
            padded = f", zeros to {-(-self.side // self.shape.patch) * self.shape.patch}"
        how = f"{DESCRIBED[self.prepare]} to {self.side}; {self.statistics} mean and std{padded}"
        if isinstance(self.shape, ViTShape) and self.positions == "offset":
            how += "; positions as DINOv2's hub code"
        return how

    def build(self) -> nn.Module:
        """The network: normalized images [B, 3, side, side] -> [B, D]."""
        if isinstance(self.shape, ConvNeXtShape):
            return ConvNeXtV2(self.shape)
        return PresetViT(self.shape, self.side, self.positions)

    def names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors in one set of names."""
        if isinstance(self.shape, ConvNeXtShape):
            return convnext_names(state)
        return vit_names(state, self.shape.projection is not None)


_LARGE = {"width": 1024, "depth": 24, "heads": 16, "hidden": 4096}
_DINOV2 = ViTShape(**_LARGE, patch=14, native=518, layer_scale=True)
_CLIP = {**_LARGE, "patch": 14, "eps": 1e-5, "norm_pre": True}


def _dinov2(preset: str) -> PresetFiles:
    source = RELEASES["dinov2-l"].source(preset)
    others = ("vit_large_patch14_dinov2.lvd142m", "dinov2-large")
    names = (source.file, *(f"{folder}/model.safetensors" for folder in others))
    return PresetFiles(preset, names, source=source)


def _hub(preset: str, repo: str, *others: str) -> PresetFiles:
    folder = repo.rpartition("/")[2]
    return PresetFiles(preset, (f"{folder}/model.safetensors", *others), repo)


def _cmmd(preset: str) -> PresetFiles:
    timm = "vit_large_patch14_clip_quickgelu_336.openai/model.safetensors"
    return _hub(preset, "openai/clip-vit-large-patch14-336", timm)


def _clip_336(preset: str, prepare: str) -> Preset:
    shape = ViTShape(**_CLIP, native=336, mlp="quick_gelu", projection=768)
    files = _cmmd(preset)
    return Preset(shape, 336, prepare, "CLIP", files, unit=True, measures=frozenset({"cmmd"}))


PRESETS: dict[str, Preset] = {
    # FD-DINOv2 of Stein et al. 2023 (arXiv 2306.04675): layer6ai-labs/dgm-eval.
    "dinov2-dgm-eval": Preset(
        _DINOV2, 224, "pil", "ImageNet", _dinov2("dinov2-dgm-eval"), positions="offset"
    ),
    # Five of the six of FDr6, Yang et al. 2026 (arXiv 2604.28190): Jiawei-Yang/FD-Loss. The sixth
    # is `inception`.
    "dinov2-fdr": Preset(_DINOV2, 256, "antialiased", "ImageNet", _dinov2("dinov2-fdr")),
    "mae-fdr": Preset(
        ViTShape(**_LARGE, patch=16, native=224),
        *(224, "antialiased", "ImageNet"),
        _hub(
            *("mae-fdr", "timm/vit_large_patch16_224.mae"),
            *("mae_pretrain_vit_large.pth", "vit-mae-large/model.safetensors"),
        ),
    ),
    # timm runs this file with the exact GELU, not with the quick one that CLIP was trained with.
    "clip-fdr": Preset(
        ViTShape(**_CLIP, native=224),
        *(256, "antialiased", "CLIP"),
        _hub(
            *("clip-fdr", "timm/vit_large_patch14_clip_224.openai"),
            "clip-vit-large-patch14/model.safetensors",
        ),
    ),
    "siglip-fdr": Preset(
        ViTShape(
            **{"width": 1152, "depth": 27, "heads": 16, "hidden": 4304, "mlp": "gelu_tanh"},
            **{"patch": 16, "native": 256, "class_token": False, "attention_pool": True},
        ),
        *(224, "antialiased", "0.5"),
        _hub(
            *("siglip-fdr", "timm/vit_so400m_patch16_siglip_256.v2_webli"),
            "siglip2-so400m-patch16-256/model.safetensors",
        ),
    ),
    "convnext-fdr": Preset(
        ConvNeXtShape(),
        *(224, "antialiased", "ImageNet"),
        _hub(
            *("convnext-fdr", "timm/convnextv2_base.fcmae_ft_in22k_in1k"),
            "convnextv2_base_22k_224_ema.pt",
        ),
    ),
    # CMMD of Jayasumana et al. 2024 (arXiv 2401.09603): google-research/cmmd.
    "clip-cmmd": _clip_336("clip-cmmd", "pil_square"),
    "clip-cmmd-tensor": _clip_336("clip-cmmd-tensor", "plain"),
}


class PresetFeatures(FeatureNetwork):
    """Features of a preset: uint8 [B, 3, H, W] -> [B, D]."""

    def __init__(self, name: str, weights: str | Path | None = None) -> None:
        """Raises MissingWeights or BadWeights in one line; on the meta device no file is read.

        The hash is that of the numbers under one set of names, so that files of different layouts
        that hold one network make equal rows.
        """
        preset = PRESETS[name]
        path = None if hollow() else preset.files.find(weights)
        with torch.device("meta"):
            network = preset.build()
        digest = "" if path is None else _load(network, preset, path, name)
        super().__init__(name, digest)
        self.preset, self.network, self.dim = preset, network, preset.shape.dim
        self.preprocess, self.measures = preset.described, preset.measures
        for key, values in zip(("mean", "std"), _STATISTICS[preset.statistics], strict=True):
            self.register_buffer(key, torch.tensor(values)[:, None, None], persistent=False)
        self.freeze()

    def seen(self, pixels: Tensor) -> Tensor:
        """uint8 pixels [B, 3, H, W] -> what the network gets, [B, 3, side, side] float32."""
        x = PREPARE[self.preset.prepare](pixels, self.preset.side)
        return (x - self.mean) / self.std

    def look(self, pixels: Tensor) -> Features:
        y = self.network(self.seen(pixels))
        return Features(y / y.norm(dim=-1, keepdim=True) if self.preset.unit else y)


def _load(network: nn.Module, preset: Preset, path: Path, name: str) -> str:
    """Give the network the numbers of a file, strictly; the sha256 of them."""
    try:
        state = read_state(path)
    except WeightsError as error:
        raise BadWeights(f"{name}: {error}") from None
    own = network.state_dict()
    named = {official_name(key): key for key in own}
    expected = {theirs: own[key] for theirs, key in named.items()}
    state = fitted(expected, preset.names(state), f"{name}: {path}")
    state = {theirs: tensor.contiguous() for theirs, tensor in state.items()}
    network.load_state_dict({named[theirs]: state[theirs] for theirs in named}, assign=True)
    network.ready()
    return content_sha256(state)
