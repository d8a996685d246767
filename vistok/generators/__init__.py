"""Generators: token sequences from a TokenSpec and a condition."""

from vistok.generators import (
    autoregressive,
    bit_diffusion,
    flow_ar,
    masked,
    masked_autoregressive,
    neighbouring,
    next_scale,
    random_order,
)
from vistok.generators.base import Generator, GeneratorConfig, load_generator
from vistok.layers import bert, mmdit, uvit  # noqa: F401  (registers the trunks of masked)

__all__ = [
    "Generator",
    "GeneratorConfig",
    "autoregressive",
    "bit_diffusion",
    "flow_ar",
    "load_generator",
    "masked",
    "masked_autoregressive",
    "neighbouring",
    "next_scale",
    "random_order",
]
