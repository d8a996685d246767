"""Generators: token sequences from a TokenSpec and a condition."""

from vistok.generators import autoregressive, bit_diffusion, next_scale, random_order
from vistok.generators.base import Generator, GeneratorConfig, load_generator

__all__ = [
    "Generator",
    "GeneratorConfig",
    "autoregressive",
    "bit_diffusion",
    "load_generator",
    "next_scale",
    "random_order",
]
