"""Quantizers: latents -> codes -> values, always in fp32."""

from vistok.quantizers.atoms import binary, dual, fsq, ibq, lfq, scalar, stochastic_vq, vq
from vistok.quantizers.base import Quantizer
from vistok.quantizers.compose import multi_scale, post_training, product, residual
from vistok.quantizers.continuous import kl, none

__all__ = [
    "Quantizer",
    "binary",
    "dual",
    "fsq",
    "ibq",
    "kl",
    "lfq",
    "multi_scale",
    "none",
    "post_training",
    "product",
    "residual",
    "scalar",
    "stochastic_vq",
    "vq",
]
