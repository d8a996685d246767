"""Losses: a reconstruction and its batch -> named scalars."""

from vistok.losses import (
    adversarial,
    alignment,
    ar_prior,
    codebook_relations,
    feature_reconstruction,
    flow,
    perceptual,
    proxy_codes,
    reconstruction,
)

__all__ = [
    "adversarial",
    "alignment",
    "ar_prior",
    "codebook_relations",
    "feature_reconstruction",
    "flow",
    "perceptual",
    "proxy_codes",
    "reconstruction",
]
