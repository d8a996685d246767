"""Regularizers of the token sequence: each only samples draws; the parts obey."""

from vistok.regularizers import (
    condition_dropout,
    latent_perturbation,
    level_dropout,
    nested_dropout,
    redundant_padding,
    tail_token_drop,
)

__all__ = [
    "condition_dropout",
    "latent_perturbation",
    "level_dropout",
    "nested_dropout",
    "redundant_padding",
    "tail_token_drop",
]
