"""Train a generator on cached tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from vistok.train.tasks.base import Phase, Task

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.autoregressive import AutoregressiveConfig
from vistok.runtime import distributed


class GeneratorTaskConfig(Config):
    kind: Literal["generator"] = "generator"
    generator: Annotated[Any, PartOf("generator")] = AutoregressiveConfig()


@register("task", GeneratorTaskConfig)
class GeneratorTask(Task):
    averaged = ("generator",)
    phases = (Phase("generator"),)
    judged_by = ("nll", -1)

    def __init__(self, config: GeneratorTaskConfig, data) -> None:
        if data is None or data.spec is None:
            raise ConfigError(
                "data: a generator trains on cached tokens; expected {kind: tokens, path: ...}, "
                "made by a task of kind cache"
            )
        choice = config.generator
        if choice.classes is None:
            choice = choice.model_copy(update={"classes": len(data.classes)})
        if choice.classes not in (0, len(data.classes)):
            raise ConfigError(
                f"task.generator.classes: got {choice.classes}; the tokens have "
                f"{len(data.classes)} classes: use that, 0 for none, or null"
            )
        self.generator = build(choice, data.spec)
        self.generator.classes = tuple(data.classes) if choice.classes else ()
        self.generator.tokenizer = dict(data.record()["tokenizer"])
        self.modules = {"generator": self.generator}

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        return self.generator.draw(index, Rng(seed, "generator", progress.step), progress)

    def step(self, phase: Phase, batch: Batch, draws: Draws, progress: Progress) -> dict:
        nats = self.modules["generator"](batch.tokens, self._condition(batch), draws)
        return {"loss": nats.mean(), "bits_per_image": nats.detach().sum(-1).mean() / math.log(2)}

    def _condition(self, batch: Batch) -> Condition:
        return Condition(label=batch.label if self.generator.classes else None)

    @torch.no_grad()
    def validate(
        self, batches: Iterable[Batch], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """nll: nats a position; bits_per_image: what an arithmetic coder would spend."""
        generator = modules["generator"].eval()
        total = torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            nats = generator(batch.tokens, self._condition(batch))
            total += torch.tensor([float(nats.double().sum()), float(len(nats))])
        nats, images = distributed.sum_(total).tolist()
        length = self.generator.spec.length
        return {
            "nll": nats / (images * length),
            "bits_per_image": nats / images / math.log(2),
        }

    def export(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        generator = modules["generator"]
        generator.classes = self.generator.classes
        generator.tokenizer = self.generator.tokenizer
        generator.save_pretrained(folder)

    def summary(self) -> dict[str, object]:
        spec = self.generator.spec
        count = sum(p.numel() for p in self.generator.parameters())
        return {
            "generator parameters": f"{count:,}",
            "tokens/image": spec.length,
            "vocabulary": " x ".join(map(str, self.generator.inner.vocab)),
            "head": self.generator.head_kind,
        }
