"""Decoders: values -> output space."""

from vistok.decoders import (
    branches,
    causal_cnn,
    causal_resnet,
    cnn,
    expanding,
    feature_qformer,
    flow_unet,
    flow_vit,
    pyramid,
    qformer,
    splat,
    vit,
)
from vistok.decoders.base import Decoder

__all__ = [
    "Decoder",
    "branches",
    "causal_cnn",
    "causal_resnet",
    "cnn",
    "expanding",
    "feature_qformer",
    "flow_unet",
    "flow_vit",
    "pyramid",
    "qformer",
    "splat",
    "vit",
]
