"""Losses: a reconstruction and its batch -> named scalars."""

from vistok.losses import adversarial, perceptual, proxy_codes, reconstruction

__all__ = ["adversarial", "perceptual", "proxy_codes", "reconstruction"]
