"""Train a classifier: the embedded feature network is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.schedules import Progress
from vistok.frozen import CNNConfig, save_weights
from vistok.runtime import distributed
from vistok.train.tasks.base import Phase, Task, check_pictures


class ClassifierTaskConfig(Config):
    kind: Literal["classifier"] = "classifier"
    network: Annotated[Any, PartOf("classifier")] = CNNConfig()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


@register("task", ClassifierTaskConfig)
class ClassifierTask(Task):
    averaged = ("network",)
    phases = (Phase("network"),)
    judged_by = ("accuracy", 1)

    def __init__(self, config: ClassifierTaskConfig, data) -> None:
        self.config = config
        if data is None:
            raise ConfigError("data: missing; a classifier trains on labeled images")
        check_pictures(data, "classifier")
        classes = len(data.classes)
        if classes != config.network.classes:
            raise ConfigError(
                f"task.network.classes: got {config.network.classes}; the data has {classes} "
                f"classes: set task.network.classes={classes}"
            )
        self.network = build(config.network)
        self.modules = {"network": self.network}

    def step(self, phase: Phase, batch: Batch, draws: Draws, progress: Progress) -> dict:
        logits = self.modules["network"](batch.pixels).float()
        loss = F.cross_entropy(logits, batch.label, label_smoothing=self.config.label_smoothing)
        accuracy = (logits.argmax(-1) == batch.label).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    @torch.no_grad()
    def validate(
        self, batches: Iterable[Batch], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        network = modules["network"].eval()
        right = seen = 0
        for batch in batches:
            right += int((network(batch.pixels).argmax(-1) == batch.label).sum())
            seen += len(batch.label)
        counts = torch.tensor([right, seen], dtype=torch.float64)
        right, seen = distributed.sum_(counts).tolist()
        return {"accuracy": right / seen}

    def export(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(modules["network"], folder / "model.safetensors")

    def summary(self) -> dict[str, object]:
        return {"parameters": f"{sum(p.numel() for p in self.network.parameters()):,}"}
