"""Measures: Fréchet distance, image quality, codebook use, the dice of pFID. None elsewhere.

The names below are found when they are asked for, since torchmetrics takes a second to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok.metrics.codebook import CodebookStats, CodebookUse
    from vistok.metrics.frechet import FeatureStats, frechet_distance
    from vistok.metrics.quality import PSNR, SSIM, MeanColourPSNR, PSNRResult

_HOMES = {
    "CodebookStats": "codebook",
    "CodebookUse": "codebook",
    "FeatureStats": "frechet",
    "frechet_distance": "frechet",
    "MeanColourPSNR": "quality",
    "PSNR": "quality",
    "PSNRResult": "quality",
    "SSIM": "quality",
}

__all__ = [
    "PSNR",
    "SSIM",
    "CodebookStats",
    "CodebookUse",
    "FeatureStats",
    "MeanColourPSNR",
    "PSNRResult",
    "frechet_distance",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vistok.metrics' has no attribute '{name}'")
    return getattr(importlib.import_module(f"vistok.metrics.{_HOMES[name]}"), name)
