"""PatchGAN: one logit per patch (pix2pix, arXiv 1611.07004)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register


class PatchGANConfig(Config):
    kind: Literal["patchgan"] = "patchgan"
    in_channels: int = Field(default=3, ge=1, le=2**10)
    """Of what it sees: 3 of an image; 6 of an image beside a noisy one (adversarial.noisy)."""
    width: int = Field(default=64, ge=8, le=2**14, multiple_of=8)
    """Channels of the first layer; doubled by each further one, up to eight times."""
    layers: int = Field(default=3, ge=1, le=16)
    """Strided layers; each halves the map."""
    norm: Literal["group", "batch", "none"] = "group"
    """batch is the original's; it sees a whole micro-batch and needs a GPU across processes."""

    @classmethod
    def tiny(cls) -> PatchGANConfig:
        return cls(width=8, layers=1)


@register("discriminator", PatchGANConfig)
class PatchGAN(nn.Module):
    """[B, in_channels, H, W] in 0..1 -> logits [B, 1, h, w]; 4x4 kernels, LeakyReLU 0.2, weights
    normal(0, 0.02)."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            wider = config.width * min(2**i, 8)
            stride = 2 if i < config.layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride, 1, bias=config.norm == "none"),
                _norm(config.norm, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        layers += [nn.Conv2d(width, 1, 4, 1, 1)]
        self.layers = nn.Sequential(*layers)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels * 2 - 1)


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(8, width) if kind == "group" else nn.Identity()
