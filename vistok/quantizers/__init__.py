"""Quantizers: latents -> codes -> values, always in fp32."""

from vistok.quantizers import binary, fsq, kl, lfq, vq
from vistok.quantizers.base import Quantizer

__all__ = ["Quantizer", "binary", "fsq", "kl", "lfq", "vq"]
