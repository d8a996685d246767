"""Decoders: values -> output space."""

from vistok.decoders import cnn, qformer, vit
from vistok.decoders.base import Decoder

__all__ = ["Decoder", "cnn", "qformer", "vit"]
