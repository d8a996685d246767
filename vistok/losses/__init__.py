"""Losses: a reconstruction and its batch -> named scalars."""

from vistok.losses import adversarial, perceptual, reconstruction

__all__ = ["adversarial", "perceptual", "reconstruction"]
