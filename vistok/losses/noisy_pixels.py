"""Noisy samples of a flow decoder as images, which a discriminator sees beside the clean ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vistok.config import ConfigError


def noisy_pixels(tokenizer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The way from a flow decoder's noisy samples to pixels; ConfigError if there is none."""
    space = tokenizer.config.output_space.kind
    if tokenizer.sampling is None or space != "pixels":
        decoder = tokenizer.config.decoder.kind
        raise ConfigError(
            f"losses: adversarial.noisy with decoder {decoder} in output_space {space}; expected a "
            "flow decoder (flow_unet, flow_vit) in pixels, or noisy=false"
        )
    return tokenizer.output_space.inverse
