"""Measures: Fréchet distances, KID, CMMD, Inception Score, precision and recall, image quality,
codebook use, the draws of pFID. None elsewhere.

The names below are found when they are asked for, since torchmetrics takes a second to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok.metrics.codebook import CodebookStats, CodebookUse
    from vistok.metrics.frechet import FeatureStats, frechet_distance
    from vistok.metrics.inception_score import InceptionScore
    from vistok.metrics.kernel import kid
    from vistok.metrics.manifold import prdc
    from vistok.metrics.mean_distance import MeanDistance
    from vistok.metrics.quality import MSSSIM, PSNR, SSIM, MeanColorPSNR, PSNRResult
    from vistok.metrics.stored import FeatureStore
    from vistok.metrics.video import FrechetVideoDistance

_HOMES = {
    "CodebookStats": "codebook",
    "CodebookUse": "codebook",
    "FeatureStats": "frechet",
    "frechet_distance": "frechet",
    "InceptionScore": "inception_score",
    "kid": "kernel",
    "prdc": "manifold",
    "FeatureStore": "stored",
    "FrechetVideoDistance": "video",
    "MeanDistance": "mean_distance",
    "MeanColorPSNR": "quality",
    "MSSSIM": "quality",
    "PSNR": "quality",
    "PSNRResult": "quality",
    "SSIM": "quality",
}

__all__ = [
    "MSSSIM",
    "PSNR",
    "SSIM",
    "CodebookStats",
    "CodebookUse",
    "FeatureStats",
    "FeatureStore",
    "FrechetVideoDistance",
    "InceptionScore",
    "MeanColorPSNR",
    "MeanDistance",
    "PSNRResult",
    "frechet_distance",
    "kid",
    "prdc",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vistok.metrics' has no attribute '{name}'")
    return getattr(importlib.import_module(f"vistok.metrics.{_HOMES[name]}"), name)
