"""Generators: token sequences from a TokenSpec alone."""

from vistok.generators import autoregressive
from vistok.generators.base import Generator, load_generator

__all__ = ["Generator", "autoregressive", "load_generator"]
