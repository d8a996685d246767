"""Spaces: what is read and painted; pixels are the identity."""

from vistok.spaces import pixels

__all__ = ["pixels"]
