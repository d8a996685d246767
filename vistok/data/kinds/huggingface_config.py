"""Config of the data kind `huggingface`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vistok.data.captions import one_source
from vistok.data.decode.transforms import TransformConfig


class HuggingFaceConfig(TransformConfig):
    """A data set of the Hugging Face library, from the hub or from this machine."""

    kind: Literal["huggingface"] = "huggingface"
    path: str
    """A local folder, hf:NAME on the hub, or a format like `parquet` together with data_files."""
    name: str | None = None
    """Configuration of the data set, where it has several."""
    data_files: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    """Files, or files by split: {train: "train-*.parquet", validation: ...}."""
    revision: str | None = None
    """Commit or branch on the hub; null: the newest."""
    train_split: str | None = "train"
    """Name of the training split; without streaming also a slice like train[:90%]."""
    val_split: str | None = "validation"
    """Name of the validation split, or a slice like train[90%:]."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str | None = "label"
    """Column of the class numbers or names; null: unlabeled."""
    classes: int | tuple[str, ...] | str | None = None
    """Number of classes, their names, or a file of names, where the data set does not say."""
    need_label: bool = False
    """true: an unlabeled row (-1 or null) is a bad sample."""
    text_column: str | None = None
    """Column of the texts; null: texts are ignored."""
    cache_dir: str | None = None
    """Folder in which the library keeps its downloads and conversions; null: its default."""
    streaming: bool = False
    """true: training reads front to back, without downloading the data set first."""
    count: int | None = Field(default=None, ge=1)
    """Streaming: training samples, where the data set does not say."""
    shuffle: int = Field(default=1024, ge=0)
    """Streaming: samples of a lane that are held and shuffled; 0: the order of the shard."""
    lanes: int | None = Field(default=None, ge=1)
    """Streaming: parts (lanes) that are read in parallel; null: processes x workers of the first
    start."""

    @model_validator(mode="after")
    def _one_text(self) -> HuggingFaceConfig:
        one_source(self, "text_column")
        return self
