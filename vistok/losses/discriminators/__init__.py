"""Discriminators: images in 0..1 -> logits. The adversarial loss trains any of them."""

from vistok.losses.discriminators.blur import BlurDiscriminator, BlurDiscriminatorConfig
from vistok.losses.discriminators.dino import DinoDiscriminator, DinoDiscriminatorConfig
from vistok.losses.discriminators.patchgan import PatchGAN, PatchGANConfig
from vistok.losses.discriminators.stylegan import StyleGANDiscriminator, StyleGANDiscriminatorConfig

__all__ = [
    "BlurDiscriminator",
    "BlurDiscriminatorConfig",
    "DinoDiscriminator",
    "DinoDiscriminatorConfig",
    "PatchGAN",
    "PatchGANConfig",
    "StyleGANDiscriminator",
    "StyleGANDiscriminatorConfig",
]
