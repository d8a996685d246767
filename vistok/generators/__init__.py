"""Generators: token sequences from a TokenSpec alone."""

from vistok.generators import gpt
from vistok.generators.base import Generator, load_generator

__all__ = ["Generator", "gpt", "load_generator"]
