"""Train a classifier: the embedded feature network is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.base import UNLABELED
from vistok.frozen import CNNConfig, save_weights
from vistok.runtime import distributed
from vistok.train.tasks.base import (
    Facts,
    Modules,
    Monitor,
    Outcome,
    Phase,
    Task,
    blank_batch,
    check_sides,
)


class ClassifierTaskConfig(Config):
    kind: Literal["classifier"] = "classifier"
    network: Annotated[Any, PartOf("classifier")] = CNNConfig()
    """The network that learns to tell the classes apart."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""


@register("task", ClassifierTaskConfig)
class ClassifierTask(Task):
    ema = ("network",)
    phases = (Phase("network"),)
    monitor = Monitor("accuracy", higher_is_better=True)

    def __init__(self, config: ClassifierTaskConfig, data) -> None:
        self.config, self.data = config, data
        if data is None:
            raise ConfigError("data: missing; a classifier trains on labeled images")
        # Of any size, but one frame each.
        check_sides(data, (data.sides or (32, 32))[-2:], "a classifier")
        classes = len(data.classes)
        if classes != config.network.classes:
            raise ConfigError(
                f"task.network.classes: got {config.network.classes}; the data has {classes} "
                f"classes: set task.network.classes={classes}"
            )
        self.network = build(config.network)
        self.modules = {"network": self.network}
        self._labels: list[tuple[Tensor, Tensor]] = []  # (index [B], label [B]) of the last step

    def step(
        self,
        phase: Phase,
        batch: Batch,
        draws: Draws,
        progress: Progress,
        earlier: Mapping[str, Any],
    ) -> Outcome:
        self._labels.append((batch.index, batch.label))  # looked at when the step is over
        logits = self.modules["network"](batch.pixels).float()
        loss = F.cross_entropy(
            logits,
            batch.label,
            ignore_index=UNLABELED,
            label_smoothing=self.config.label_smoothing,
        )
        accuracy = (logits.argmax(-1) == batch.label).float().mean()
        return Outcome({"loss": loss, "accuracy": accuracy})

    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float | Tensor]:
        """ConfigError if a sample of the step has no class."""
        for index, label in self._labels:
            _check_labels(index, label)
        self.forget()
        return {}

    def forget(self) -> None:
        self._labels.clear()

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], modules: Modules) -> dict[str, float]:
        network = modules["network"].eval()
        right = seen = 0
        for batch in batches:
            _check_labels(batch.index, batch.label)
            right += int((network(batch.pixels).argmax(-1) == batch.label).sum())
            seen += len(batch.label)
        counts = torch.tensor([right, seen], dtype=torch.float64)
        right, seen = distributed.sum_(counts).tolist()
        return {"accuracy": right / seen}

    def export(self, folder: Path, modules: Modules) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(modules["network"], folder / "model.safetensors")

    def example(self, count: int) -> Batch:
        return blank_batch(count, self.data, self._sides)

    def facts(self) -> Facts:
        lines = {"parameters": f"{sum(p.numel() for p in self.network.parameters()):,}"}
        return Facts(sides=self._sides, lines=lines)

    @property
    def _sides(self) -> tuple[int, int]:
        """(H, W) of the images, from the data or from its first sample."""
        data = self.data
        return tuple(data.size) if data.size is not None else tuple(data[0].pixels.shape[-2:])


def _check_labels(index: Tensor, label: Tensor) -> None:
    """ConfigError if a sample has no class: it can neither be learned nor counted."""
    unlabeled = (label < 0).nonzero()
    if len(unlabeled):
        raise ConfigError(
            f"data: sample {int(index[int(unlabeled[0])])} has no label, and a classifier "
            f"needs one of each; take unlabeled samples out (`vistok check` names them), or set "
            f"data.need_label=true where the kind of data has it"
        )
