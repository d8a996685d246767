"""Spaces: representations of pixels that encoders read and decoders give."""

from vistok.spaces import clip_vae, codes, features, haar, pixels, vae
from vistok.spaces.base import Space

__all__ = ["Space", "clip_vae", "codes", "features", "haar", "pixels", "vae"]
