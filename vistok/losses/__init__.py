"""Losses: a reconstruction and its batch -> named scalars."""

from vistok.losses import (
    adversarial,
    alignment,
    feature_reconstruction,
    flow,
    perceptual,
    proxy_codes,
    reconstruction,
)

__all__ = [
    "adversarial",
    "alignment",
    "feature_reconstruction",
    "flow",
    "perceptual",
    "proxy_codes",
    "reconstruction",
]
