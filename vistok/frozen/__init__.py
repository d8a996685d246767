"""Pretrained networks that never train, by name.

`feature_network(name)` gives images -> vectors, `video_network(name)` clips -> vectors,
`perceptual_network(name)` pairs of images -> distances; `vistok.frozen.vision` has the networks
that tokenizers are aligned with, at any depth. Weights come from the package (`vistok-cnn`), a
path, the folder $VISTOK_WEIGHTS or the usual download; missing weights are an error of one line and
never replaced by others.
"""

from __future__ import annotations

from pathlib import Path

from vistok.config.errors import InputError
from vistok.config.names import nearest
from vistok.frozen.cnn import CNNConfig, ResNet9
from vistok.frozen.embedded import EmbeddedDistance, EmbeddedFeatures, save_weights
from vistok.frozen.files import BadWeights, MissingWeights
from vistok.frozen.network import FeatureNetwork, Features, PerceptualNetwork, VideoNetwork

FEATURES = (
    *("vistok-cnn", "inception", "dinov2", "clip"),
    *("dinov2-dgm-eval", "dinov2-fdr", "mae-fdr", "clip-fdr", "siglip-fdr", "convnext-fdr"),
    *("clip-cmmd", "clip-cmmd-tensor"),
    *("random-cnn", "pixels-8"),
)
VIDEO = ("i3d", "videomae")
PERCEPTUAL = (
    *("vistok-cnn", "lpips-vgg", "lpips-alex", "convnext-s-logits"),
    *("inception-pool", "inception-pool-510"),
)

__all__ = [
    "FEATURES",
    "PERCEPTUAL",
    "VIDEO",
    "BadWeights",
    "CNNConfig",
    "FeatureNetwork",
    "Features",
    "MissingWeights",
    "PerceptualNetwork",
    "ResNet9",
    "VideoNetwork",
    "feature_network",
    "perceptual_network",
    "save_weights",
    "video_network",
]


def feature_network(name: str, weights: str | Path | None = None) -> FeatureNetwork:
    """uint8 [B, 3, H, W] -> [B, D] float32; `name` is one of FEATURES.

    Args:
        weights: a local weight file (or its folder); None searches the usual places.
    Raises InputError for an unknown name, MissingWeights, BadWeights: one line each.
    """
    _check(name, FEATURES, "feature network")
    if name == "inception":
        from vistok.frozen.inception import Inception

        return Inception(weights)
    if name in ("dinov2", "clip"):
        from vistok.frozen.hf import CLIPVision, DINOv2

        return (DINOv2 if name == "dinov2" else CLIPVision)(weights)
    if name in ("random-cnn", "pixels-8"):
        from vistok.frozen.controls import PixelFeatures, RandomFeatures

        return RandomFeatures() if name == "random-cnn" else PixelFeatures()
    if name != "vistok-cnn":
        from vistok.frozen.presets import PresetFeatures

        return PresetFeatures(name, weights)
    return EmbeddedFeatures(weights)


def video_network(
    name: str, weights: str | Path | None = None, clips: str = "larp"
) -> VideoNetwork:
    """Clips [B, 3, T, H, W], uint8 or 0..1 -> [B, D] float32; `name` is one of VIDEO.

    Args:
        weights: as in `feature_network`; these networks are never downloaded.
        clips: the preset of preprocessing, which changes FVD: larp, omnitokenizer, styleganv,
            videogpt.
    """
    _check(name, VIDEO, "video network")
    if name == "i3d":
        from vistok.frozen.i3d import I3D

        return I3D(weights, clips)
    from vistok.frozen.hf import VideoMAE

    return VideoMAE(weights, clips)


def perceptual_network(name: str, weights: str | Path | None = None) -> PerceptualNetwork:
    """(pred, target) [B, 3, H, W] in 0..1 -> distance [B]; `name` is one of PERCEPTUAL.

    Differentiable in `pred`. Arguments and errors as in `feature_network`.
    """
    _check(name, PERCEPTUAL, "perceptual network")
    if name.startswith("lpips-"):
        from vistok.frozen.lpips import LPIPS

        return LPIPS(name.removeprefix("lpips-"), weights)
    if name == "convnext-s-logits":
        from vistok.frozen.convnext import ConvNeXtLogits

        return ConvNeXtLogits(weights)
    if name.startswith("inception-pool"):
        from vistok.frozen.inception import InceptionDistance

        return InceptionDistance(weights, 510.0 if name.endswith("-510") else 255.0)
    return EmbeddedDistance(weights)


def _check(name: str, valid: tuple[str, ...], what: str) -> None:
    if name not in valid:
        raise InputError(f"unknown {what} '{name}'; {nearest(name, valid)}")
