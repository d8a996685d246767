"""Generators: token sequences from a TokenSpec and a condition."""

from vistok.generators import autoregressive
from vistok.generators.base import Generator, GeneratorConfig, load_generator

__all__ = ["Generator", "GeneratorConfig", "autoregressive", "load_generator"]
