"""PSNR, SSIM and MS-SSIM of reconstructions, as running sums.

PSNR = 10 log10(1 / MSE) for pixels in 0..1. Two conventions are in use and differ by decibels:
`mean` averages the PSNR of each image (usual in tokenizer papers; infinite as soon as one image is
exact), `pooled` takes the PSNR of the squared error over all pixels.
SSIM (Wang et al. 2004) in torchmetrics' convention: Gaussian window 11x11, sigma 1.5, reflect
padding, k1 0.01, k2 0.03, mean over channels and the whole map, in fp64.
MS-SSIM (Wang et al. 2003): the same window on five scales, which needs sides of 176 and more.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.accumulator import Averages, pair, unit_range
from vistok.metrics.structural import ssim

_WINDOW = 11
SSIM_SIDE = _WINDOW // 2 + 1  # pixels that its reflected window needs
MS_SSIM_SIDE = _WINDOW * 2**4  # images halved four times must still hold the window


class PSNRResult(NamedTuple):
    """Decibels, by both conventions, over `images` images."""

    mean: float
    pooled: float
    images: int
    mean_error: float = math.nan  # standard errors, over images (or clips) drawn anew
    pooled_error: float = math.nan


def decibels(error: Tensor) -> Tensor:
    """10 log10(1 / error) of mean squared errors, infinite for 0.

    10 / ln 10 is torchmetrics' float32 constant: 5e-8 off, but equal to what others report.
    """
    return -torch.log(error) * (10 / torch.log(torch.tensor(10.0, device=error.device)))


class PSNR(Averages):
    """`update(pred, target)`, both [B, C, H, W] in 0..1 or uint8; `compute() -> PSNRResult`."""

    higher_is_better = True

    def __init__(self, together: int = 1, **kwargs: Any) -> None:
        """together: images that are one sample, see `Averages`."""
        super().__init__(together, **kwargs)
        for name in ("decibels", "squares"):
            self.add_mean(name)
        self.add_sum("values", torch.zeros((), dtype=torch.int64))

    def update(self, pred: Tensor, target: Tensor) -> None:
        self._add(*pair(pred, target))

    def _add(self, pred: Tensor, target: Tensor) -> None:
        squares = ((pred - target) ** 2).flatten(1).sum(1)  # [B]
        each = decibels(squares / target[0].numel())
        self.put("decibels", each)
        self.put("squares", squares)
        self.values += target.numel()
        self.images += len(target)

    def compute(self) -> PSNRResult:
        images = self.seen()
        pooled = decibels(self.squares / self.values)
        share = self.error("squares") * images / max(float(self.squares), 1e-300)
        return PSNRResult(
            mean=float(self.decibels) / images,
            pooled=float(pooled),
            images=images,
            mean_error=self.error("decibels"),
            pooled_error=10 / math.log(10) * share,
        )


class MeanColorPSNR(PSNR):
    """The floor under any reconstruction: PSNR of each image's own mean color."""

    def update(self, target: Tensor) -> None:
        target = unit_range(target, "target")
        self._add(target.mean((2, 3), keepdim=True).expand_as(target), target)


class SSIM(Averages):
    """`update(pred, target)`, both [B, C, H, W] in 0..1 or uint8; `compute()`: mean over images."""

    higher_is_better = True
    side = SSIM_SIDE

    def __init__(self, together: int = 1, **kwargs: Any) -> None:
        """together: images that are one sample, see `Averages`."""
        super().__init__(together, **kwargs)
        self.add_mean("similarity")
        self.mean_error = math.nan  # of what `compute` gave

    def update(self, pred: Tensor, target: Tensor) -> None:
        pred, target = pair(pred, target)
        if min(target.shape[2:]) < self.side:
            raise InputError(
                f"{type(self).__name__} of {target.shape[2]}x{target.shape[3]} pixels: its 11x11 "
                f"window needs sides of {self.side} or more"
            )
        self.put("similarity", self.each(pred, target))
        self.images += len(target)

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        """[B] of float64 images in 0..1."""
        return ssim(pred, target)

    def compute(self) -> float:
        self.mean_error = self.error("similarity")
        return float(self.similarity) / self.seen()


class MSSSIM(SSIM):
    """Multi-scale SSIM with the paper's five weights; negative contrast terms count as 0."""

    side = MS_SSIM_SIDE

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        return multiscale_structural_similarity_index_measure(
            pred, target, sigma=1.5, kernel_size=_WINDOW, reduction="none", data_range=1.0
        )
