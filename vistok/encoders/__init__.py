"""Encoders: input space -> latents."""

from vistok.encoders import (
    branches,
    causal_cnn,
    causal_qformer,
    causal_resnet,
    clusters,
    cnn,
    pyramid,
    qformer,
    regions,
    resampler,
    tracks,
    vision_tower,
    vit,
)
from vistok.encoders.base import Encoder

__all__ = [
    "Encoder",
    "branches",
    "causal_cnn",
    "causal_qformer",
    "causal_resnet",
    "clusters",
    "cnn",
    "pyramid",
    "qformer",
    "regions",
    "resampler",
    "tracks",
    "vision_tower",
    "vit",
]
