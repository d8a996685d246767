"""Encoders: input space -> latents."""

from vistok.encoders import (
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
    vit,
)
from vistok.encoders.base import Encoder

__all__ = [
    "Encoder",
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
    "vit",
]
