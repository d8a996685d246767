"""Discriminators: images in 0..1 -> logits. The adversarial loss trains any of them."""

from vistok.config.contract import ducks
from vistok.losses.discriminators.blur import BlurDiscriminator, BlurDiscriminatorConfig
from vistok.losses.discriminators.dino import DinoDiscriminator, DinoDiscriminatorConfig
from vistok.losses.discriminators.patchgan import PatchGAN, PatchGANConfig
from vistok.losses.discriminators.stylegan import StyleGANDiscriminator, StyleGANDiscriminatorConfig

ducks("discriminator", "forward")  # any network from images in 0..1 to logits

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
