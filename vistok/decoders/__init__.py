"""Decoders: values -> output space."""

from vistok.decoders import cnn, pyramid, qformer, vit
from vistok.decoders.base import Decoder

__all__ = ["Decoder", "cnn", "pyramid", "qformer", "vit"]
