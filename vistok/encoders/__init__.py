"""Encoders: pixels -> latents."""

from vistok.encoders import vit

__all__ = ["vit"]
