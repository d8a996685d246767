"""Fréchet video distance (Unterthiner et al. 2018): the Fréchet distance over clips.

The mathematics is that of images (`vistok.metrics.frechet`); the network sees [B, 3, T, H, W].
Programs differ in two conventions, and in the preprocessing that the network's own preset names:

- covariance: divided by n - 1 (VideoGPT, TATS, OmniTokenizer, StyleGAN-V) or by n (LARP, ddof = 0);
- square root: of the symmetric form by SVD, or of the plain product by `sqrtm`. Both stand for the
  sum of singular values that is computed here, and agree with it to the rounding of their own.

FVD falls with the number of clips: compare only at equal numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.frozen.network import FeatureNetwork, VideoNetwork
from vistok.metrics.frechet import FeatureStats, frechet_distance


class FrameFeatures:
    """Features of clips by a network of single images: the mean over the frames, beside the mean
    absolute change from each frame to the next (0 for a single frame).

    No video network: it sees how much neighboring frames differ, not in which direction time goes.
    `name` says so.
    """

    media = "video"

    def __init__(self, network: FeatureNetwork) -> None:
        self.network, self.dim = network, 2 * network.dim
        self.name, self.sha256 = f"{network.name} frames", network.sha256
        said = "mean over frames, and mean absolute change between neighboring frames"
        self.preprocess = f"{network.preprocess}; {said}"

    def __call__(self, clips: Tensor) -> Tensor:
        """clips [B, 3, T, H, W] uint8 -> features [B, 2 D] float32."""
        count = clips.shape[2]
        each = self.network(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, count))
        change = each.diff(dim=1).abs().sum(1) / max(1, count - 1)
        return torch.cat([each.mean(1), change], 1)


class MotionFeatures:
    """Features, by a network of single images, of the changes from each frame to the next, averaged
    over time: half the change of every pixel around middle gray.

    A still clip is gray whatever it shows; frames in another order, or backwards, differ.
    """

    media = "video"

    def __init__(self, network: FeatureNetwork) -> None:
        self.network, self.dim = network, network.dim
        self.name, self.sha256 = f"{network.name} motion", network.sha256
        said = "of 128 + half the change of each pixel to the next frame; mean over time"
        self.preprocess = f"{network.preprocess}; {said}"

    def __call__(self, clips: Tensor) -> Tensor:
        """clips [B, 3, T, H, W] uint8 -> features [B, D] float32; a single frame has no change."""
        shown = clips if clips.shape[2] > 1 else clips.expand(-1, -1, 2, -1, -1)
        change = shown.float().diff(dim=2).div(2).add(128).floor().clamp(0, 255).byte()
        each = self.network(change.transpose(1, 2).flatten(0, 1))
        return each.unflatten(0, (len(clips), -1)).mean(1)


class FrechetVideoDistance:
    """`update(clips, real=...)` on every batch, `compute()` at the end, on every rank."""

    def __init__(self, network: VideoNetwork, ddof: int = 1) -> None:
        self.network, self.ddof = network, ddof
        self.real, self.decoded = FeatureStats(network.dim), FeatureStats(network.dim)

    def update(self, clips: Tensor, real: bool) -> None:
        """clips [B, 3, T, H, W], uint8 or float in 0..1."""
        (self.real if real else self.decoded).update(self.network(clips))

    def merge(self, other: FrechetVideoDistance) -> FrechetVideoDistance:
        """Add what another one with the same network has seen."""
        mine, theirs = self._identity, other._identity
        if mine != theirs:
            raise InputError(f"cannot merge {theirs} into {mine}: another network or convention")
        self.real.merge(other.real)
        self.decoded.merge(other.decoded)
        return self

    @property
    def _identity(self) -> tuple:
        network = self.network
        return network.name, network.sha256, network.preprocess, self.ddof

    def compute(self) -> float:
        """Over all ranks; warns in one line for fewer clips than features."""
        return frechet_distance(self.real.reduce(), self.decoded.reduce(), self.ddof)
