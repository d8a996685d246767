"""Decoders: code vectors -> pixels."""

from vistok.decoders import cnn, vit

__all__ = ["cnn", "vit"]
