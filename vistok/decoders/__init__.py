"""Decoders: values -> output space."""

from vistok.decoders import cnn, flow_vit, qformer, vit
from vistok.decoders.base import Decoder

__all__ = ["Decoder", "cnn", "flow_vit", "qformer", "vit"]
