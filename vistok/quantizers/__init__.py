"""Quantizers: latents -> codes -> values, always in fp32."""

from vistok.quantizers import binary, fsq, lfq, vq
from vistok.quantizers.base import Quantizer

__all__ = ["Quantizer", "binary", "fsq", "lfq", "vq"]
