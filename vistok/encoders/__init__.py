"""Encoders: pixels -> latents."""

from vistok.encoders import cnn, vit

__all__ = ["cnn", "vit"]
