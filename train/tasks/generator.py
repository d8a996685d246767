"""Train a generator on cached tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from vistok import pretrained
from vistok.config import Config, ConfigError, PartOf, UserError
from vistok.config.registry import build, register
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.frozen.files import hollow
from vistok.generators import Generator, GeneratorConfig
from vistok.generators.autoregressive import AutoregressiveConfig
from vistok.generators.base import SavedCodes
from vistok.generators.latent_scale import LatentScaleConfig, measured
from vistok.generators.texts import read_text_record
from vistok.pretrained.identity import identify
from vistok.runtime import distributed
from vistok.storage.lineage import Identity, pairing
from vistok.tokens import TokenSpec
from vistok.train.tasks.base import Facts, Monitor, Outcome, Phase, Task, blank_batch

_MEASURED = 2000  # samples on which the scaling of continuous tokens is measured


class GeneratorTaskConfig(Config):
    kind: Literal["generator"] = "generator"
    generator: Annotated[Any, PartOf("generator")] = AutoregressiveConfig()
    init: str | None = None
    """A saved or released generator whose weights training starts from: a run, a folder, or a name.
    Its tokens may lie on another grid, where no tensor depends on it."""


@register("task", GeneratorTaskConfig)
class GeneratorTask(Task):
    ema = ("generator",)
    phases = (Phase("generator"),)

    def __init__(self, config: GeneratorTaskConfig, data) -> None:
        self.data = data
        if data is None or data.spec is None:
            raise ConfigError(
                "data: a generator trains on cached tokens; expected {kind: tokens, path: ...}, "
                "made by a task of kind cache"
            )
        choice = _with_classes(config.generator, len(data.classes))
        choice = _with_scale(choice, data)
        made_by = dict(data.record()["tokenizer"])
        codes = _codes(made_by, data.spec) if choice.wants_codes else None
        self.generator = build(choice, data.spec, codes)
        self.generator.classes = tuple(data.classes) if self.generator.num_classes else ()
        self.generator.tokenizer = made_by
        if config.init is not None:
            _start_from(self.generator, config.init)
        if self.generator.reads_text:
            _learn_texts(self.generator, data)
        _check_first_frames(self.generator, data)
        self.modules = {"generator": self.generator}
        metric, sign = self.generator.judged_by
        self.monitor = Monitor(metric, higher_is_better=sign > 0)

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        return self.generator.draw(index, Rng(seed, "generator", progress.step), progress)

    def step(
        self,
        phase: Phase,
        batch: Batch,
        draws: Draws,
        progress: Progress,
        earlier: Mapping[str, Any],
    ) -> Outcome:
        condition = self.generator.condition_of(batch)
        return Outcome(self.modules["generator"](batch.tokens, condition, draws))

    @torch.no_grad()
    def validate(
        self, batches: Iterable[Batch], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """The generator's own metrics over all batches and processes."""
        generator = modules["generator"].eval()
        names = generator.metrics
        total = torch.zeros(len(names), 2, dtype=torch.float64)
        for batch in batches:
            found = generator.evaluate(batch.tokens, self.generator.condition_of(batch))
            total += torch.tensor(
                [[float(x) for x in found[name]] for name in names], dtype=total.dtype
            )
        sums = distributed.sum_(total).tolist()  # a rank without a batch adds nothing
        return {name: added / count for name, (added, count) in zip(names, sums, strict=True)}

    def export(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        generator = modules["generator"]
        generator.classes = self.generator.classes
        generator.tokenizer = self.generator.tokenizer
        generator.text_record = self.generator.text_record
        generator.save_pretrained(folder)

    def example(self, count: int) -> Batch:
        return blank_batch(count, self.data)

    def facts(self) -> Facts:
        count = sum(p.numel() for p in self.generator.parameters())
        lines = {"generator parameters": f"{count:,}", **self.generator.summary()}
        return Facts(self.generator.spec, lines=lines)


def _start_from(generator: nn.Module, name: str) -> None:
    """Copy the weights of a saved generator; ConfigError unless every tensor fits."""
    if hollow():  # on the meta device: shapes alone
        return
    try:
        begun = pretrained.open(name, expect="generator")
    except UserError as error:
        raise ConfigError(f"task.init: {error}") from None
    made_by = generator.tokenizer
    # Cached by a released name, the tokens are those of the release.
    found = replace(Identity.of(made_by), release=made_by["name"])
    pair = pairing(begun.tokenizer, found)
    if pair.refused:
        raise ConfigError(
            f"task.init: {name} learned tokens of {begun.tokenizer['name']}, and the data are "
            f"tokens of {made_by['name']}: {pair.text}; start from a generator of the same "
            "tokenizer"
        )
    given, mine = begun.state_dict(), generator.state_dict()
    for key in sorted({*mine, *given}):
        shapes = [tuple(one[key].shape) if key in one else None for one in (given, mine)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"task.init: {key} of {name} has shape {shapes[0]}, expected {shapes[1]}; start "
                "from a generator of the same sizes"
            )
    generator.load_state_dict(given)


def _learn_texts(generator: Generator, data: Any) -> None:
    """Record the text encoder of the tokens' cache, and take over its empty text where that stands
    for no condition."""
    images = data.record()["images"]
    record = images.get("text_encoder") if isinstance(images, Mapping) else None
    generator.text_record = read_text_record(record, "data: the tokens")
    if hollow():  # on the meta device: shapes alone
        return
    generator.condition_of(blank_batch(1, data))  # says what the tokens lack
    if data.empty_text is not None:
        generator.fill_empty(data.empty_text)
    elif not generator.knows_empty:
        raise ConfigError(
            "data: the tokens hold no features of the empty text, which stand for no condition in "
            "this generator; cache them again with task.text"
        )


def _check_first_frames(generator: Generator, data: Any) -> None:
    """ConfigError unless the tokens are cached with as many known frames as the generator reads."""
    wanted = generator.config.condition.first_frames
    if wanted is None:
        return
    images = data.record()["images"]
    found = images.get("first_frames") if isinstance(images, Mapping) else None
    if found != wanted:
        raise ConfigError(
            f"task.generator.condition.first_frames={wanted}: the tokens are cached with "
            f"task.first_frames={'null' if found is None else found}; cache them with "
            f"task.first_frames={wanted}"
        )


def _with_classes(choice: GeneratorConfig, classes: int) -> GeneratorConfig:
    """The config with the number of classes of the tokens, if it leaves it open."""
    condition = choice.condition
    if condition.classes is None:
        condition = condition.model_copy(update={"classes": classes})
    if condition.classes not in (0, classes):
        raise ConfigError(
            f"task.generator.condition.classes: got {condition.classes}; the tokens have "
            f"{classes} classes: use that, 0 for none, or null"
        )
    return choice.model_copy(update={"condition": condition})


def _with_scale(choice: GeneratorConfig, data: Any) -> GeneratorConfig:
    """The config with a scaling that is measured on the tokens, if it leaves one open; on samples
    that lie evenly in the data."""
    if getattr(choice, "latents", choice) is not None or data.spec.vocab:
        return choice
    if hollow():  # on the meta device: shapes alone
        return choice.model_copy(update={"latents": LatentScaleConfig()})
    step = max(len(data) // _MEASURED, 1)
    values = [data.sample(i).tokens for i in range(0, len(data), step)]
    return choice.model_copy(update={"latents": measured(torch.stack(values))})


def _codes(made_by: Mapping[str, str], spec: TokenSpec) -> nn.Module:
    """The quantizer of the tokenizer that made the tokens, whose weights must be the same ones."""
    if hollow():  # on the meta device: shapes alone
        return SavedCodes()
    name = made_by["name"]
    try:
        tokenizer, identity = identify(name)
    except UserError as error:
        raise ConfigError(f"task.generator: code vectors: {error}") from None
    pair = pairing(made_by, identity)
    if not pair.fits or tokenizer.spec() != spec:
        raise ConfigError(
            f"task.generator: the tokens were made by other weights than those of {name} now "
            f"({pair.text or 'another spec'}); cache the tokens again, or train with embed=learned"
        )
    return tokenizer.quantizer
