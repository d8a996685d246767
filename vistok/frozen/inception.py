"""`inception`: the 2015 TF Inception graph as torch-fidelity's `inception-v3-compat`, 2048-d pool.

Its definition contains the TF1-style bilinear resize to 299 without antialias and (x - 128) / 128.
torchvision's Inception is another network and not interchangeable.

The same pass gives the two other outputs that published numbers use: the logits without
their bias (Inception Score), and for sFID the map that ADM's evaluator takes (Dhariwal and Nichol
2021): `mixed_6/conv`, which is the first branch of Mixed_6d here, after its ReLU; its first 7
channels at 17x17 positions, channels last, 2023 numbers.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.frozen.files import BadWeights, Source, check_types, hollow, read_state
from vistok.frozen.network import FeatureNetwork, Features, PerceptualNetwork
from vistok.storage.weights import sha256

NAME = "inception"
_LAYERS = ["2048", "logits_unbiased"]
_CHANNELS = 7
SOURCE = Source(
    network=NAME,
    file="weights-inception-2015-12-05-6726825d.pth",
    project="torch-fidelity",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)


class Inception(FeatureNetwork):
    """2048 pooled features, as published FIDs use them; 2023 spatial ones; 1008 logits."""

    dim, spatial_dim, classes = 2048, _CHANNELS * 17 * 17, 1008
    preprocess = "TF1 bilinear, not antialiased, to 299; (x - 128) / 128"

    def __init__(self, weights: str | Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        if hollow():
            super().__init__(NAME, "")
            self.network = _without_weights(FeatureExtractorInceptionV3)
            self.freeze()
            return
        path = SOURCE.find(weights)
        super().__init__(NAME, sha256(path))
        # The library unpickles its file without restraint. It is therefore given bytes that we
        # wrote ourselves, from tensors that were read safely.
        safe, state = io.BytesIO(), read_state(path, NAME)
        torch.save(state, safe)
        safe.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", _LAYERS, feature_extractor_weights_path=safe
            )
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            raise BadWeights(
                f"{NAME}: {path} does not fit ({' '.join(lines[1:2])[:200]}); "
                f"expected {SOURCE.file} of {SOURCE.project}"
            ) from None
        check_types(self.network.state_dict(), state, NAME)  # the library would cast them
        self.freeze()

    def look(self, pixels: Tensor) -> Features:
        maps: list[Tensor] = []
        mine = threading.get_ident()  # the hook of one thread sees the calls of all

        def keep(module: torch.nn.Module, given: Any, made: Tensor) -> None:
            if threading.get_ident() == mine:
                maps.append(made[:, :_CHANNELS])

        hook = self.network.Mixed_6d.branch1x1.register_forward_hook(keep)
        try:
            pool, logits = self.network(pixels)
        finally:
            hook.remove()
        return Features(pool, maps[0].permute(0, 2, 3, 1).flatten(1), logits)


_LOOKS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *(f"Mixed_{name}" for name in "5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split()),
    "AvgPool",
)


class InceptionDistance(PerceptualNetwork):
    """Mean squared difference of the 2048 pooled features of two images, those of FID
    (GPSToken's `FIDPerceptual`)."""

    preprocess = "TF1 bilinear, not antialiased, to 299; (x - 128) / 128"

    def __init__(self, weights: str | Path | None = None, top: float = 255.0) -> None:
        """
        Args:
            top: value that the network is shown for a white pixel. GPSToken's code scales pixels of
                -1..1 by 255 (x + 1), so that it is 510 there, outside what the network was made
                for.
        """
        looks = Inception(weights)
        super().__init__("inception-pool" if top == 255 else f"inception-pool-{top:g}", "")
        self.sha256, self.top, self.network = looks.sha256, top, looks.network
        self.freeze()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Pixels [B, 3, H, W] in 0..1 -> [[B, 2048]] float32."""
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x,
        )

        side = self.network.INPUT_IMAGE_SIZE
        x = interpolate_bilinear_2d_like_tensorflow1x(
            pixels.float() * self.top, size=(side, side), align_corners=False
        )
        x = (x - 128) / 128
        for name in _LOOKS:
            x = getattr(self.network, name)(x)
        return [x.flatten(1).float()]

    def between(self, pred: list[Tensor], target: list[Tensor]) -> Tensor:
        return (pred[0] - target[0]).square().mean(-1)


def _without_weights(kind: type) -> torch.nn.Module:
    """The library's network, which cannot be built without a state dict, given an empty one."""
    hollow_kind = type(kind.__name__, (kind,), {"load_state_dict": lambda self, state: None})
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return hollow_kind("inception-v3-compat", _LAYERS, feature_extractor_weights_path=nothing)
