"""What every frozen network is: parameters without gradient, evaluation mode for good.

Letters: B batch, H W pixels, c channels, h w positions of a map, D feature width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A network that is only looked through; `name` and `sha256` of its weights identify it."""

    name: str
    sha256: str

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__()
        self.name, self.sha256 = name, sha256

    def freeze(self) -> Frozen:
        """Called once all parts are there."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode, whatever the module around it does."""
        return super().train(False)


class FeatureNetwork(Frozen):
    """Pictures -> one vector each, for Fréchet distances and the like."""

    dim: int

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] uint8 -> features [B, D] float32, no gradient.

        fp32 throughout, whatever the autocast state; TF32 off. Raises ValueError for anything that
        is not uint8, since features of unrounded pixels are not comparable with published ones.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"{self.name}: pixels are {tuple(pixels.shape)} {pixels.dtype}; expected "
                f"uint8 [B, 3, H, W] (round with `(x * 255).round().clamp(0, 255).byte()`)"
            )
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            with exact_convolutions(pixels.is_cuda):
                return self.look(pixels).float()

    def look(self, pixels: Tensor) -> Tensor:
        """The network itself: checked uint8 pixels -> [B, D]."""
        raise NotImplementedError


class PerceptualNetwork(Frozen):
    """Two batches of pictures -> one distance each, differentiable in the first."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred, target [B, 3, H, W] in 0..1 -> distance [B] float32; gradients flow to `pred`."""
        self.check(pred, target)
        return self.compare(pred, target)

    def check(self, pred: Tensor, target: Tensor) -> None:
        """ValueError unless both are pictures of one shape."""
        if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 3:
            raise ValueError(
                f"{self.name}: pred is {tuple(pred.shape)}, target {tuple(target.shape)}; "
                f"expected two equal shapes [B, 3, H, W]"
            )
        if not (pred.is_floating_point() and target.is_floating_point()):
            raise ValueError(
                f"{self.name}: pred is {pred.dtype}, target {target.dtype}; expected float in 0..1"
            )

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """Checked pictures -> [B]: LPIPS's way, weighed squares between unit vectors of maps."""
        with torch.no_grad():
            seen = self.maps(target)
        distance = pred.new_zeros(len(pred), dtype=torch.float32)
        for stage, (a, b) in enumerate(zip(self.maps(pred), seen, strict=True)):
            # The maps may be bf16 under autocast; differences of unit vectors need fp32.
            difference = (unit(a.float()) - unit(b.float())) ** 2
            distance = distance + self.weigh(stage, difference).mean((1, 2))
        return distance

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Pixels in 0..1 -> maps [B, c, h, w], fine first."""
        raise NotImplementedError

    def weigh(self, stage: int, difference: Tensor) -> Tensor:
        """Squared differences [B, c, h, w] of a stage -> [B, h, w]."""
        raise NotImplementedError


def unit(maps: Tensor) -> Tensor:
    """Each position's vector over the length of it: x / (|x| + 1e-10), zero for a zero vector.

    The floor under the root leaves values alone and keeps the gradient of a zero vector finite.
    """
    length = (maps**2).sum(1, keepdim=True).clamp_min(1e-20).sqrt()
    return maps / (length + 1e-10)


@contextlib.contextmanager
def exact_convolutions(cuda: bool) -> Iterator[None]:
    """TF32 off inside: its 10-bit products move a feature by about 1e-3."""
    if not cuda:
        yield
        return
    convolution = torch.backends.cudnn.conv
    before = convolution.fp32_precision
    convolution.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolution.fp32_precision = before
