"""Heads: rows of a transformer's last layer -> a sample of the output space."""

from vistok.heads import codes, pixels
from vistok.heads.base import Head

__all__ = ["Head", "codes", "pixels"]
