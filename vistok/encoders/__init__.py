"""Encoders: input space -> latents."""

from vistok.encoders import cnn, pyramid, qformer, vit
from vistok.encoders.base import Encoder

__all__ = ["Encoder", "cnn", "pyramid", "qformer", "vit"]
