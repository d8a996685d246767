"""`convnext-s-logits`: distance between the class logits of ConvNeXt-S (arXiv 2201.03545).

TiTok's perceptual loss: torchvision's ImageNet classifier sees both images at 224 x 224 (bilinear
with antialiasing), and the distance is the mean squared difference of its 1000 logits.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vistok.frozen.files import Source, fitted, hollow, read_state
from vistok.frozen.network import IMAGENET_STATISTICS, PerceptualNetwork
from vistok.layers.resize import resize
from vistok.storage.weights import sha256

_SIDE = 224
_MEAN, _STD = IMAGENET_STATISTICS
_FILE = "convnext_small-0c510722.pth"  # IMAGENET1K_V1
_SOURCE = Source(
    "convnext-s-logits",
    _FILE,
    "torchvision (PyTorch)",
    f"https://download.pytorch.org/models/{_FILE}",
)


class ConvNeXtLogits(PerceptualNetwork):
    """Mean squared difference between the 1000 class logits of two images."""

    def __init__(self, weights: str | Path | None = None) -> None:
        from torchvision.models import convnext_small

        path = None if hollow() else _SOURCE.find(weights)
        super().__init__(_SOURCE.network, "" if path is None else sha256(path))
        with torch.device("meta"):
            network = convnext_small(weights=None)
        if path is not None:
            state = fitted(network.state_dict(), read_state(path, self.name), self.name)
            network.load_state_dict(state, assign=True)
        self.network = network
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.freeze()

    def logits(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in 0..1 -> [B, 1000] float32."""
        seen = resize(pixels, _SIDE, "bilinear", antialias=True)
        return self.network((seen - self.mean) / self.std).float()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        return [self.logits(pixels)]

    def between(self, pred: list[Tensor], target: list[Tensor]) -> Tensor:
        return (pred[0] - target[0]).square().mean(-1)
