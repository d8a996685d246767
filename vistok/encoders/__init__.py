"""Encoders: input space -> latents."""

from vistok.encoders import cnn, qformer, vit
from vistok.encoders.base import Encoder

__all__ = ["Encoder", "cnn", "qformer", "vit"]
