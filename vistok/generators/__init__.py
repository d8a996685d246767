"""Generators: token sequences from a TokenSpec and a condition."""

from vistok.generators import autoregressive, random_order
from vistok.generators.base import Generator, GeneratorConfig, load_generator

__all__ = ["Generator", "GeneratorConfig", "autoregressive", "load_generator", "random_order"]
