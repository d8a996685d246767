"""Data: what a run looks at, in which order, and how it reaches the device.

A data part is built from its config and opened for a split: `build(config).open("train")` gives a
`Dataset`. Importing this package files the parts `folder`, `parquet`, `photos`, `tokens` and
`video`.
"""

from __future__ import annotations

from vistok.data.base import BadSample, DataError, Dataset, Sample
from vistok.data.folder import Folder, FolderConfig
from vistok.data.loader import EvalLoader, TrainLoader, to_device
from vistok.data.order import Order, eval_indices
from vistok.data.parquet import Parquet, ParquetConfig
from vistok.data.photos import Photos, PhotosConfig
from vistok.data.tokens import CachedTokens, CachedTokensConfig, TokenCache, TokenCacheWriter
from vistok.data.video import Video, VideoConfig

__all__ = [
    "BadSample",
    "CachedTokens",
    "CachedTokensConfig",
    "DataError",
    "Dataset",
    "EvalLoader",
    "Folder",
    "FolderConfig",
    "Order",
    "Parquet",
    "ParquetConfig",
    "Photos",
    "PhotosConfig",
    "Sample",
    "TokenCache",
    "TokenCacheWriter",
    "TrainLoader",
    "Video",
    "VideoConfig",
    "eval_indices",
    "to_device",
]
