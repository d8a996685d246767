"""Decoders: values -> output space."""

from vistok.decoders import (
    branches,
    causal_cnn,
    causal_resnet,
    cnn,
    flow_vit,
    pyramid,
    qformer,
    vit,
)
from vistok.decoders.base import Decoder

__all__ = [
    "Decoder",
    "branches",
    "causal_cnn",
    "causal_resnet",
    "cnn",
    "flow_vit",
    "pyramid",
    "qformer",
    "vit",
]
