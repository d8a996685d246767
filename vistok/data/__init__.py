"""Data sets, the order in which training reads them, and batches on their way to the device.

A data part is built from its config and opened for a split: `build(config).open("train")` gives a
`Dataset` (samples by index) or a `Stream` (shards read front to back). The validation split is
always a `Dataset`, and so is a training split that is opened with `augment=False`. Importing this
package registers the parts `folder`, `huggingface`, `mix`, `pairs`, `parquet`, `photos`, `tokens`,
`video` and `webdataset`.
"""

from __future__ import annotations

from vistok.data.base import BadSample, DataError, Dataset, Sample
from vistok.data.batch import to_device
from vistok.data.kinds.folder import Folder, FolderConfig
from vistok.data.kinds.huggingface import HuggingFace
from vistok.data.kinds.huggingface_config import HuggingFaceConfig
from vistok.data.kinds.mix import Mix, MixConfig
from vistok.data.kinds.pairs import GeneratedPairs, PairsConfig
from vistok.data.kinds.parquet import Parquet, ParquetConfig
from vistok.data.kinds.photos import Photos, PhotosConfig
from vistok.data.kinds.tokens import CachedTokens, CachedTokensConfig
from vistok.data.kinds.video import Video, VideoConfig
from vistok.data.kinds.webdataset import WebDataset, WebDatasetConfig
from vistok.data.loading.loader import EvalLoader, TrainLoader
from vistok.data.loading.stream import Stream
from vistok.data.loading.stream_loader import StreamLoader
from vistok.data.order import Order, eval_indices
from vistok.data.token_cache import TokenCache
from vistok.data.token_cache_writer import TokenCacheWriter

__all__ = [
    "BadSample",
    "CachedTokens",
    "CachedTokensConfig",
    "DataError",
    "Dataset",
    "EvalLoader",
    "Folder",
    "FolderConfig",
    "GeneratedPairs",
    "HuggingFace",
    "HuggingFaceConfig",
    "Mix",
    "MixConfig",
    "Order",
    "PairsConfig",
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
