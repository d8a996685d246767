"""Discriminators: images in 0..1 -> logits. The adversarial loss trains any of them.

One with `media = "clip"` is given whole clips, any other their single frames.
"""

from vistok.config.contract import ducks
from vistok.losses.discriminators.blur import BlurDiscriminator, BlurDiscriminatorConfig
from vistok.losses.discriminators.clip_vit import ClipViT, ClipViTConfig
from vistok.losses.discriminators.dino import DinoDiscriminator, DinoDiscriminatorConfig
from vistok.losses.discriminators.patchgan import PatchGAN, PatchGANConfig
from vistok.losses.discriminators.patchgan3d import PatchGAN3D, PatchGAN3DConfig
from vistok.losses.discriminators.stylegan import StyleGANDiscriminator, StyleGANDiscriminatorConfig

ducks("discriminator", "forward")  # any network from images in 0..1 to logits

__all__ = [
    "BlurDiscriminator",
    "BlurDiscriminatorConfig",
    "ClipViT",
    "ClipViTConfig",
    "DinoDiscriminator",
    "DinoDiscriminatorConfig",
    "PatchGAN",
    "PatchGAN3D",
    "PatchGAN3DConfig",
    "PatchGANConfig",
    "StyleGANDiscriminator",
    "StyleGANDiscriminatorConfig",
]
