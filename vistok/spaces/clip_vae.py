"""Latents of VidTok, a frozen causal VAE of clips: the space of VideoFlexTok (arXiv 2604.12887).

Pixels become -1..1, 1 + 4k frames become 1 + k latent frames; the posterior's mode is read (or a
sample of it). A clip may be shorter than the space's, or longer; an image is a clip of one frame.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.shapes import Shape, latent_frames
from vistok.frozen.clip_vae import NAME, BorrowedVidTok
from vistok.frozen.vae import OWN, OwnVAE, Posterior
from vistok.frozen.vidtok import VidTokConfig
from vistok.spaces.pixels import PixelsConfig
from vistok.spaces.vae import VAESpace


class ClipVAEConfig(Config):
    kind: Literal["clip_vae"] = "clip_vae"
    weights: str = NAME
    """VidTok's release, as a file in the folder of weights, or the path of a file; or own: weights
    that are saved with this model (random until they are imported)."""
    network: VidTokConfig = VidTokConfig()
    """Constants of the network; those of the weights must be the same."""
    scaling_factor: float = Field(default=1.0, gt=0)
    """Factor of latents."""
    shift_factor: float = 0.0
    """Subtracted from latents before they are scaled."""
    sample_posterior: bool = False
    """Training reads a sample of the posterior instead of its mode; evaluation never does."""
    pixels: PixelsConfig = PixelsConfig(mean=0.5, std=0.5)
    """Scale of the pixels that the network reads."""

    @classmethod
    def tiny(cls) -> ClipVAEConfig:
        return cls(weights=OWN, network=VidTokConfig.tiny())


@register("space", ClipVAEConfig)
class ClipVAESpace(VAESpace):
    coders = (BorrowedVidTok, OwnVAE)
    whole_clips = True

    def _frames(self, shape: Shape) -> tuple[int, ...]:
        return (self._latent_frames(shape.frames),) if shape.is_clip else ()

    def _latent_frames(self, frames: int) -> int:
        taker = f"a clip of {frames} frames: this VAE"
        return latent_frames(frames, self.config.network.frame_stride, taker)

    def posterior(self, pixels: Tensor) -> Posterior:
        """pixels [B, 3, (T,) H, W] in 0..1 -> mean and log-variance of their latents."""
        if pixels.ndim == 5:
            self._latent_frames(pixels.shape[2])
            return super().posterior(pixels)
        found = super().posterior(pixels[:, :, None])
        return Posterior(found.mean[:, :, 0], found.logvar[:, :, 0])

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y) if y.ndim == 5 else super().inverse(y[:, :, None])[:, :, 0]
