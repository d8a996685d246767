"""Spaces: what is read and decoded; pixels are the identity."""

from vistok.spaces import codes, pixels

__all__ = ["codes", "pixels"]
