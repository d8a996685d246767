"""Losses: a reconstruction and its batch -> named scalars."""

from vistok.losses import adversarial, alignment, perceptual, proxy_codes, reconstruction

__all__ = ["adversarial", "alignment", "perceptual", "proxy_codes", "reconstruction"]
