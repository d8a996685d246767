"""The embedded network `vistok-cnn`: a narrow ResNet-9 for 32x32 RGB, trained on CIFAR-10.

Plan of the DAWNBench ResNet-9 (Page, "How to train your ResNet", 2018), with two differences that
serve distances rather than accuracy: global *average* pooling (a maximum over positions has heavy
tails, which a Gaussian fit describes badly), and pooled features of the last two stages, since the
last alone forgets texture. `configs/jobs/feature_net.yaml` trains it.

Letters: B batch, H W pixels, h w positions of a map, c channels, D pooled width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.layers.resize import resize

SIDE = 32  # pixels per side of the network's input
WEIGHTS = Path(__file__).parent / "weights" / "vistok-cnn.safetensors"


class CNNConfig(Config):
    """A ResNet-9 classifier for 32x32 images."""

    kind: Literal["resnet9"] = "resnet9"
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    """Channels of the four maps, at 32, 16, 8 and 4 positions per side."""
    classes: int = 10
    """Number of labels."""
    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    """Subtracted from pixels in 0..1, per color (CIFAR-10's)."""
    std: tuple[float, float, float] = (0.2470, 0.2435, 0.2616)
    """Divides pixels after that."""


class _Conv(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        )


class _Residual(nn.Module):
    """x + conv(conv(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_Conv(width, width), _Conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@register("classifier", CNNConfig)
class ResNet9(nn.Module):
    """Classifier of 32x32 images, and its intermediate features."""

    def __init__(self, config: CNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CNNConfig()
        a, b, c, d = config.widths
        self.stages = nn.ModuleList(
            [
                _Conv(3, a),
                nn.Sequential(_Conv(a, b), nn.MaxPool2d(2), _Residual(b)),
                nn.Sequential(_Conv(b, c), nn.MaxPool2d(2)),
                nn.Sequential(_Conv(c, d), nn.MaxPool2d(2), _Residual(d)),
            ]
        )
        self.dim = c + d
        self.head = nn.Linear(self.dim, config.classes)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.to(memory_format=torch.channels_last)

    def features(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """pixels [B, 3, H, W] in 0..1 -> (four maps [B, c, h, w], fine first; pooled [B, D]).

        Other sizes than 32x32 are first resized to it (bilinear, antialiased).
        """
        x = (resize(pixels, SIDE, "bilinear", antialias=True) - self.mean) / self.std
        # Channels-last convolutions are the fast ones, on CPUs with bf16 units as on GPUs.
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps, torch.cat([maps[-2].mean((2, 3)), maps[-1].mean((2, 3))], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] in 0..1 -> logits [B, classes]."""
        return self.head(self.features(pixels)[1])
