"""PatchGAN of clips: one logit per patch of space and time (Open-MAGVIT2, arXiv 2409.04410).

The first two layers halve time and sides, further ones the sides alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register


class PatchGAN3DConfig(Config):
    kind: Literal["patchgan3d"] = "patchgan3d"
    width: int = Field(default=64, ge=8, le=2**14, multiple_of=8)
    """Channels of the first layer; doubled by each further one, up to eight times."""
    layers: int = Field(default=3, ge=1, le=16)
    """Strided layers; each halves the sides."""
    norm: Literal["group", "batch", "none"] = "group"
    """batch is the original's; it sees a whole micro-batch and needs a GPU across processes."""

    @classmethod
    def tiny(cls) -> PatchGAN3DConfig:
        return cls(width=8, layers=1)


@register("discriminator", PatchGAN3DConfig)
class PatchGAN3D(nn.Module):
    """[B, 3, T, H, W] in 0..1 -> logits [B, 1, t, h, w]; 3x3x3 kernels, LeakyReLU 0.2.

    Images are clips of one frame. Weights start from normal(0, 0.02), biases as torch has them.
    """

    media = "clip"

    def __init__(self, config: PatchGAN3DConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv3d(3, width, 3, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            wider = config.width * min(2**i, 8)
            stride: int | tuple[int, int, int] = (2 if i == 1 else 1, 2, 2)
            if i == config.layers:
                stride = 1
            layers += [
                nn.Conv3d(width, wider, 3, stride, 1, bias=config.norm == "none"),
                _norm(config.norm, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        layers += [nn.Conv3d(width, 1, 3, 1, 1)]
        self.layers = nn.Sequential(*layers)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm3d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        clips = pixels if pixels.ndim == 5 else pixels[:, :, None]
        return self.layers(clips * 2 - 1)


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(width)
    return nn.GroupNorm(8, width) if kind == "group" else nn.Identity()
