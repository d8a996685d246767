"""Latents of a frozen KL autoencoder: the space of FlexTok and other latent flow decoders.

Pixels become -1..1, then the posterior's mode (or a sample of it), shifted and scaled. Two spaces
of one config use one network. Clips are seen frame by frame, as video models on a VAE of images do.
Letters: B batch, C latent channels, T frames, h w their grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.frozen.vae import OWN, BorrowedVAE, OwnVAE, Posterior, VAENetworkConfig
from vistok.layers.frames import frames, unfold
from vistok.runtime.precision import no_autocast
from vistok.spaces.base import Space
from vistok.spaces.pixels import Pixels, PixelsConfig


class VAEConfig(Config):
    kind: Literal["vae"] = "vae"
    weights: str = "EPFL-VILAB/flextok_vae_c16"
    """A folder in the format of diffusers, a repository of the Hub; or own: weights that are saved
    with this model (random until they are imported)."""
    network: VAENetworkConfig = VAENetworkConfig()
    """Constants of the network; those of the weights must be the same."""
    scaling_factor: float | None = Field(default=None, gt=0)
    """Factor of latents; null = that of the weights' own config.json."""
    shift_factor: float | None = None
    """Subtracted from latents before they are scaled (SD3); null = that of the weights' config."""
    sample_posterior: bool = False
    """Training reads a sample of the posterior instead of its mode; evaluation never does."""
    pixels: PixelsConfig = PixelsConfig()
    """Scale of the pixels that the network reads."""

    @classmethod
    def tiny(cls) -> VAEConfig:
        return cls(weights=OWN, network=VAENetworkConfig.tiny(), scaling_factor=0.5)

    @model_validator(mode="after")
    def _scaled(self) -> VAEConfig:
        if self.weights == OWN and self.scaling_factor is None:
            raise InputError("weights=own needs a scaling_factor; give that of the VAE's config")
        return self


@register("space", VAEConfig)
class VAESpace(Space):
    coders: tuple[Callable[..., nn.Module], Callable[..., nn.Module]] = (BorrowedVAE, OwnVAE)
    """Networks by name, and those that are saved with the model."""
    whole_clips: bool = False
    """The network takes clips [B, C, T, H, W]; false: it takes images, the frames of clips."""

    def __init__(self, config: VAEConfig, shape: Shape) -> None:
        super().__init__()
        factor = config.network.factor
        if any(side % factor for side in shape.image_size):
            raise InputError(
                f"sides={shape.sides} are no multiples of {factor}, the pixels of a VAE's latent; "
                "change tokenizer.image_size"
            )
        self.config, self.pixels = config, Pixels(config.pixels, shape)
        sides = tuple(side // factor for side in shape.image_size)
        self.shape = Shape(config.network.latent_channels, (*self._frames(shape), *sides))
        own = config.weights == OWN
        borrowed, kept = self.coders
        self.vae = kept(config.network) if own else borrowed(config.weights, config.network)
        scale, shift = config.scaling_factor, config.shift_factor
        self.scale = self.vae.scaling_factor if scale is None else scale
        self.shift = (0.0 if own else self.vae.shift_factor) if shift is None else shift

    def _frames(self, shape: Shape) -> tuple[int, ...]:
        """Latent frames of a clip, as a tuple of one; () of an image."""
        return shape.sides[:-2]

    def share(self, other: Space) -> None:
        same = ("kind", "weights", "network")
        if isinstance(other, VAESpace) and all(
            getattr(self.config, name) == getattr(other.config, name) for name in same
        ):
            del self.vae
            self._lent = [other.vae]  # in a list: it is a part of the other space

    @property
    def network(self) -> BorrowedVAE | OwnVAE:
        """The VAE, this space's own or the one that it shares."""
        return self._lent[0] if hasattr(self, "_lent") else self.vae

    def posterior(self, pixels: Tensor) -> Posterior:
        """pixels [B, 3, (T,) H, W] in 0..1 -> mean and log-variance [B, C, (T,) h, w] of their
        latents, not scaled."""
        # fp32 as the releases have it: rounding of latents would be part of every target.
        with no_autocast(pixels.device):
            x = self.pixels(pixels.float()).to(self._dtype)
            if self.whole_clips or x.ndim == 4:
                return self.network.posterior(x)
            found = self.network.posterior(frames(x))
        return Posterior(*(unfold(part, len(pixels)) for part in (found.mean, found.logvar)))

    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        posterior = self.posterior(pixels)
        noise = None if draws is None else draws.noise
        if noise is not None and noise.ndim == 5:
            noise = noise[:, :, : posterior.mean.shape[2]]  # of a clip shorter than the space's
        z = posterior.mean if noise is None else posterior.sample(noise)
        return (z - self.shift) * self.scale

    def inverse(self, y: Tensor) -> Tensor:
        with no_autocast(y.device):
            z = y.to(self._dtype) / self.scale + self.shift
            if self.whole_clips or y.ndim == 4:
                return self.pixels.inverse(self.network.decode(z).float())
            decoded = self.network.decode(frames(z)).float()
        return self.pixels.inverse(unfold(decoded, len(y)))

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        if not self.config.sample_posterior:
            return None
        return PartDraws(noise=rng.normal(index, (self.shape.channels, *self.shape.sides)))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype
