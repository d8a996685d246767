"""Extract tokens once: a frozen tokenizer over a data set, into a memory-mapped cache.

Writes `train/` and `val/` caches below the run's folder. An interrupted cache goes on where it
stopped; a finished one is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from tqdm import tqdm

from train.tasks.base import Task
from vistok.config import Config, ConfigError
from vistok.data.cache import TokenCacheWriter
from vistok.data.loader import EvalLoader, to_device
from vistok.data.stream import Stream
from vistok.hub import WEIGHTS, model_folder
from vistok.registry import register
from vistok.tokenizer import Tokenizer
from vistok.weights import sha256


class CacheTaskConfig(Config):
    kind: Literal["cache"] = "cache"
    tokenizer: str
    """A tokenizer's run folder, or a folder made by save_pretrained."""
    limit: int | None = Field(default=None, ge=1)
    """Training samples to tokenise; null = all."""


@register("task", CacheTaskConfig)
class CacheTask(Task):
    def __init__(self, config: CacheTaskConfig, data) -> None:
        self.config = config

    def run(self, config, data, accelerator, folder: Path) -> None:
        if data is None:
            raise ConfigError("data: missing; give the data set to tokenise, e.g. {kind: photos}")
        source = Path(model_folder(self.config.tokenizer))
        tokenizer = Tokenizer.from_pretrained(str(source)).to(accelerator.device)
        digest = sha256(source / WEIGHTS)
        if accelerator.num_processes > 1:
            raise ConfigError(
                f"{accelerator.num_processes} processes were launched, but one writes a cache; "
                "use python -m train"
            )
        for split in ("train", "val"):
            dataset = data.open(split)
            if isinstance(dataset, Stream):
                raise ConfigError(
                    "data.streaming: a cache needs the samples by index, in a fixed order; set "
                    "data.streaming=false"
                )
            limit = self.config.limit if split == "train" else None
            count = len(dataset) if limit is None else min(limit, len(dataset))
            with TokenCacheWriter(
                folder / split,
                tokenizer.spec(),
                count,
                source=dataset.record(),
                tokenizer=self.config.tokenizer,
                sha256=digest,
                classes=dataset.classes,
            ) as writer:
                self._fill(writer, dataset, tokenizer, config, accelerator.device, split)
        print(f"tokens are cached in {folder / 'train'} and {folder / 'val'}")

    @torch.no_grad()
    def _fill(self, writer, dataset, tokenizer, config, device, split: str) -> None:
        loader = EvalLoader(
            dataset,
            config.batch_size,
            workers=config.workers,
            limit=writer.count,
            start=writer.written,
        )
        bar = tqdm(total=writer.count, initial=writer.written, desc=f"cache {split}", unit="img")
        for batch in loader:
            batch = to_device(batch, device)
            writer.write(tokenizer.encode(batch.pixels), batch.label)
            bar.update(len(batch.index))
        bar.close()
