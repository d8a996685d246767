"""Encoders: input space -> latents."""

from vistok.encoders import cnn, vit
from vistok.encoders.base import Encoder

__all__ = ["Encoder", "cnn", "vit"]
