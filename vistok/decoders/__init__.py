"""Decoders: code vectors -> pixels."""

from vistok.decoders import vit

__all__ = ["vit"]
