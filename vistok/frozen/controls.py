"""Two controls beside the learned feature networks: a network that learned nothing, and no network.

A distance that falls through a learned network and stays through both controls was perhaps bought
by that network's own preferences; one that falls through all three is there in the pixels. Neither
needs a file. They are for orders between models, not for numbers that are published.

Letters: B batch, H W pixels, D feature width.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from vistok.core.rng import Rng
from vistok.frozen.cnn import CNNConfig, ResNet9
from vistok.frozen.files import hollow
from vistok.frozen.network import FeatureNetwork, Features
from vistok.layers.resize import resize
from vistok.storage.weights import content_sha256

RANDOM, PIXELS = "random-cnn", "pixels-8"
_WIDTHS = (16, 32, 64, 96)
_SIDE = 8


class RandomFeatures(FeatureNetwork):
    """`random-cnn`: vistok-cnn's plan at half width with random weights, keyed by seed 0; 160 wide.

    Weights are normal with variance 2 / fan-in, norms leave what they are given.
    """

    preprocess = "bilinear, antialiased, to 32; CIFAR-10 mean and std"

    def __init__(self) -> None:
        network = ResNet9(CNNConfig(widths=_WIDTHS))
        network.head = nn.Identity()
        for name, weight in network.named_parameters():
            if weight.ndim == 4 and not hollow():
                draws = Rng(0, f"random-cnn {name}").generator()
                fan_in = weight[0].numel()
                values = draws.standard_normal(tuple(weight.shape)) * (2 / fan_in) ** 0.5
                with torch.no_grad():
                    weight.copy_(torch.from_numpy(values))
        digest = "" if hollow() else content_sha256(dict(network.named_parameters()))
        super().__init__(RANDOM, digest)
        self.network, self.dim = network, network.dim
        self.freeze()

    def look(self, pixels: Tensor) -> Features:
        return Features(self.network.features(pixels.float() / 255)[1])


class PixelFeatures(FeatureNetwork):
    """`pixels-8`: the image itself at 8 x 8 pixels, 192 numbers in 0..1, colors and layout."""

    dim = 3 * _SIDE**2
    preprocess = "bilinear, antialiased, to 8"

    def __init__(self) -> None:
        super().__init__(PIXELS, hashlib.sha256(self.preprocess.encode()).hexdigest())

    def look(self, pixels: Tensor) -> Features:
        return Features(resize(pixels.float() / 255, _SIDE, "bilinear", antialias=True).flatten(1))
