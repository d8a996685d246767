"""Data: what a run looks at, in which order, and how it reaches the device.

A data part is built from its config and opened for a split: `build(config).open("train")` gives a
`Dataset` (samples by index) or a `Stream` (shards read front to back); the validation split is
always a `Dataset`. Importing this package files the parts `folder`, `huggingface`, `parquet`,
`photos`, `tokens`, `video` and `webdataset`.
"""

from __future__ import annotations

from vistok.data.base import BadSample, DataError, Dataset, Sample
from vistok.data.folder import Folder, FolderConfig
from vistok.data.huggingface import HuggingFace, HuggingFaceConfig
from vistok.data.loader import EvalLoader, TrainLoader, to_device
from vistok.data.order import Order, eval_indices
from vistok.data.parquet import Parquet, ParquetConfig
from vistok.data.photos import Photos, PhotosConfig
from vistok.data.stream import Stream
from vistok.data.stream_loader import StreamLoader
from vistok.data.tokens import CachedTokens, CachedTokensConfig, TokenCache, TokenCacheWriter
from vistok.data.video import Video, VideoConfig
from vistok.data.webdataset import WebDataset, WebDatasetConfig

__all__ = [
    "BadSample",
    "CachedTokens",
    "CachedTokensConfig",
    "DataError",
    "Dataset",
    "EvalLoader",
    "Folder",
    "FolderConfig",
    "HuggingFace",
    "HuggingFaceConfig",
    "Order",
    "Parquet",
    "ParquetConfig",
    "Photos",
    "PhotosConfig",
    "Sample",
    "Stream",
    "StreamLoader",
    "TokenCache",
    "TokenCacheWriter",
    "TrainLoader",
    "Video",
    "VideoConfig",
    "WebDataset",
    "WebDatasetConfig",
    "eval_indices",
    "to_device",
]
