"""Decoders: values -> output space."""

from vistok.decoders import cnn, vit
from vistok.decoders.base import Decoder

__all__ = ["Decoder", "cnn", "vit"]
