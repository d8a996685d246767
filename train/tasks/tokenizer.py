"""Train a tokenizer: reconstruction, perceptual, adversarial and quantizer losses.

Stages are configs: `init` starts parts from a saved tokenizer, `freeze` keeps parts as they are,
`lr` slows parts down. Decoder fine-tuning and post-training are this task with these three.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

import vistok.losses  # noqa: F401  (registers the losses)
from vistok.conditioning import NO_TEXTS
from vistok.config import Config, ConfigError, PartOf, UserError
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.losses.reconstruction import ReconstructionConfig
from vistok.runtime import distributed
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.monitoring.collapse import CollapseConfig, UsageWindow
from vistok.train.monitoring.grids import Grid
from vistok.train.tasks import frame_rates as between_rates
from vistok.train.tasks import reconstructions, tower_init
from vistok.train.tasks.ancestry import Ancestry
from vistok.train.tasks.base import (
    Buffers,
    Facts,
    Modules,
    Monitor,
    Outcome,
    Phase,
    Task,
    blank_batch,
    check_sides,
)
from vistok.train.tasks.cached_space import check_cached, check_losses, is_cached
from vistok.train.tasks.losses import Losses
from vistok.train.tasks.mixed import check_mix
from vistok.train.tasks.stages import InitConfig, networks_from, start_from
from vistok.train.tasks.vit_init import check_fits


class TokenizerTaskConfig(Config):
    kind: Literal["tokenizer"] = "tokenizer"
    tokenizer: TokenizerConfig
    losses: tuple[Annotated[Any, PartOf("loss")], ...] = (ReconstructionConfig(),)
    """Losses besides the quantizer's own."""
    init: tuple[InitConfig, ...] = ()
    """Saved tokenizers, or frozen ViTs, from which parts take their weights: a path, {path, parts},
    {network, parts}, or a list of them, in order."""
    freeze: tuple[str, ...] = ()
    """Names of parts (or of anything inside: `encoder.patch_embed`) that do not train."""
    lr: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Learning-rate factor of named parts, and of networks of losses that train beside the
    tokenizer (`prior`)."""
    frame_rates: between_rates.FrameRatesConfig | None = None
    """Training reads clips at one frame rate and rebuilds them at another (VFRTok); only for
    tokenizers that take any number of frames. null = never."""
    collapse: CollapseConfig | None = CollapseConfig()
    """When to warn that the codebook is collapsing; null = never."""
    validate_lengths: tuple[int, ...] | None = None
    """Prefix lengths at which validation and image grids decode, besides the whole sequence; null =
    those of the token spec. [] makes validation cheap where a decoder takes many steps."""
    term_gradients_every: int = Field(default=500, ge=0)
    """Steps between logs of each loss term's gradient at the decoder's last layer; 0 = never."""

    sampling: dict[str, Any] = Field(default_factory=dict)
    """Changes to the decoder's own sampling (steps, guidance) in validation and image grids; only
    for decoders that sample."""

    @field_validator(
        "init",
        mode="before",
        json_schema_input_type=str | InitConfig | tuple[str | InitConfig, ...] | None,
    )
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str | dict | InitConfig) else value

    @field_validator(
        "losses", mode="before", json_schema_input_type=tuple[Annotated[Any, PartOf("loss")], ...]
    )
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value in ([], ()):
            raise InputError(
                "no loss, so nothing to learn from; give at least {kind: reconstruction}"
            )
        return value

    @model_validator(mode="after")
    def _starts(self) -> TokenizerTaskConfig:
        rotary = getattr(self.tokenizer.encoder, "rotary", None)
        if self.frame_rates is not None and (rotary is None or self.tokenizer.frames is None):
            raise InputError(
                "frame_rates needs a tokenizer of clips with encoder.rotary; leave it out"
            )
        for init in self.init:
            for name in init.parts if init.network is not None else ():
                if init.network.kind in tower_init.KINDS:
                    tower_init.check_tower(init.network, name, self.tokenizer)
                    continue
                part = getattr(self.tokenizer, name, None)
                check_fits(init.network, name, part, self.tokenizer.shape)
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """(H, W) of the images that the tokenizer takes, (T, H, W) of clips."""
        return self.tokenizer.shape.sides


@register("task", TokenizerTaskConfig)
class TokenizerTask(Task):
    needs_data = False
    ema = ("tokenizer",)

    def __init__(self, config: TokenizerTaskConfig, data) -> None:
        self.config, self.data = config, data
        self.cached = is_cached(data)
        several = config.frame_rates is not None or (data is not None and data.sets)
        mixed = data is not None and several and not self.cached
        if not self.cached and not mixed:
            check_sides(data, config.tokenizer.shape.sides, "this tokenizer")
        if data is not None and config.tokenizer.text is not None and not data.texts:
            raise ConfigError(NO_TEXTS)
        self.tokenizer = Tokenizer(config.tokenizer)
        if mixed:
            check_mix(data, self.tokenizer)
        if config.frame_rates is not None:
            between_rates.check(self.tokenizer)
        self.lengths, self.sampling = self._lengths(), self._sampling()
        self.started = [start_from(self.tokenizer, init) for init in config.init]
        inits = [(i.path, tuple(i.parts)) for i in config.init if i.path is not None]
        self.ancestry = Ancestry.of(self.tokenizer, inits, data is not None and data.targets)
        _check_names(self.tokenizer, "freeze", config.freeze)
        for name, parameter in self.tokenizer.named_parameters():
            if any(_inside(name, part) for part in config.freeze):
                parameter.requires_grad_(False)
        self.losses = Losses(config.losses, self.tokenizer, config.term_gradients_every)
        _check_names(self.tokenizer, "lr", config.lr, self.losses.beside)
        copied = (networks_from(self.losses.networks, init) for init in config.init)
        self.started += [line for line in copied if line is not None]
        if self.cached:
            check_cached(data, self.tokenizer)
            check_losses(self.losses.parts)
        self.modules = {"tokenizer": self.tokenizer, **self.losses.networks}
        first = Phase("tokenizer", beside=self.losses.beside, lr_factors=config.lr)
        self.phases = (first, *self.losses.phases)
        self.monitor = Monitor("psnr", True, self._images, self._alarms)
        self.window: UsageWindow | None = None
        self._usage: float | None = None  # of a window that this step ended
        self.buffers = Buffers(helpers=(self.losses,))
        if config.collapse is not None and self.tokenizer.spec().vocab:
            self.window = UsageWindow(self.tokenizer.spec())
            self.buffers = Buffers((self.losses,), {"window": self.window}, self.window.share)

    def _lengths(self) -> tuple[int, ...]:
        """Prefix lengths of validation, ascending; ConfigError for one that the spec forbids."""
        spec, lengths = self.tokenizer.spec(), self.config.validate_lengths
        if lengths is None:
            return spec.eval_lengths
        for length in lengths:
            try:
                spec.check_length(length)
            except ValueError as error:
                raise ConfigError(f"task.validate_lengths: {error}") from None
        return tuple(sorted({*lengths, spec.max_prefix}))

    def _sampling(self) -> Config | None:
        """The decoder's sampling in validation; ConfigError for settings that it does not have."""
        try:
            return self.tokenizer.settings(self.config.sampling or None)
        except UserError as error:
            raise ConfigError(f"task.{error}") from None

    @property
    def wants_data(self) -> bool:
        return self.tokenizer.quantizer.wants_data

    def whole(self, name: str) -> set[nn.Parameter]:
        if name != "tokenizer":
            return set()
        parts = self.tokenizer.quantizer.parameters()
        return {*parts, self.tokenizer.decoder.last_layer, *self.losses.borrowed}

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        draws = self.tokenizer.draw(index, seed, progress)
        if self.config.frame_rates is not None:
            rng = Rng(seed, between_rates.PART, progress.step)
            draws = draws.join(between_rates.draw(index, rng), between_rates.PART)
        return draws.join(self.losses.draw(index, seed, progress), "losses")

    @torch.no_grad()
    def prepare(self, batch: Batch, rng: Rng) -> None:
        condition = self.tokenizer.condition_of(batch)
        if batch.space is None:
            latents = self.tokenizer.latents(batch.pixels, condition)
        else:
            latents = self.tokenizer.encoder(batch.space, condition)
        everyone = replace(latents, values=distributed.gather(latents.values))
        self.tokenizer.quantizer.initialize(everyone, rng.child("codebook"))

    def step(
        self,
        phase: Phase,
        batch: Batch,
        draws: Draws,
        progress: Progress,
        earlier: Mapping[str, Any],
    ) -> Outcome:
        name = phase.module
        if name != "tokenizer":
            network, handed = self.modules[name], earlier[name]
            return self.losses.own_step(phase, network, handed, batch, draws, progress)
        for part in self.config.freeze:
            # Its dropout and its statistics (usage, EMA codebook) rest too.
            self.tokenizer.get_submodule(part).eval()
        if self.config.frame_rates is not None:
            patch = self.tokenizer.encoder.any_frames
            batch = between_rates.between(self.config.frame_rates, batch, draws, patch)
        condition = self.tokenizer.condition_of(batch, draws)
        reconstruction = self.modules["tokenizer"](
            batch,
            draws,
            condition,
            self.losses.needs_pixels,
            self.losses.needs_target_in_space,
        )
        self.tokenizer.quantizer.remember(reconstruction.quantized)
        if self.window is not None:
            self.window.add(reconstruction.quantized.indices)
        handed = self.losses.hand_on(reconstruction, batch, progress)
        return Outcome(self.losses.terms(reconstruction, batch, progress), handed)

    @torch.no_grad()
    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float | Tensor]:
        self.losses.after_step()
        events = self.tokenizer.quantizer.after_step(rng.child("codebook"))
        if self.window is not None and (progress.step + 1) % self.config.collapse.steps == 0:
            self.window.share()
            events["window_usage"] = self._usage = self.window.usage()
            self.window.begin()
        return events

    @torch.no_grad()
    def forget(self) -> None:
        self.losses.forget()
        self.tokenizer.quantizer.forget()

    def _alarms(self, progress: Progress) -> list[dict]:
        """The codebook's usage over a window that has just ended, if it is too low."""
        usage, self._usage = self._usage, None
        collapse = self.config.collapse
        if usage is None or usage >= collapse.below:
            return []
        text = (
            f"codebook usage {usage:.1%} over the last {collapse.steps} steps, below "
            f"{collapse.below:.0%}: the codebook is collapsing; {self.tokenizer.quantizer.remedy}"
        )
        return [{"alarm": "collapse", "usage": usage, "text": text}]

    def validate(self, batches: Iterable[Batch], modules: Modules) -> dict[str, float]:
        """PSNR at each validated length, codebook usage and entropy."""
        return reconstructions.validate(modules["tokenizer"].eval(), batches, self._decoding)

    def _images(self, batch: Batch, modules: Modules) -> dict[str, Grid]:
        tokenizer = modules["tokenizer"].eval()
        image = reconstructions.image_grid(tokenizer, batch, self._decoding)
        rows = reconstructions.row_names(tokenizer.spec(), self._decoding)
        return {"reconstructions": Grid(image, rows)}

    @property
    def _decoding(self) -> reconstructions.Decoding:
        return reconstructions.Decoding(self.lengths, self.tokenizer.condition_of, self.sampling)

    def export(self, folder: Path, modules: Modules) -> None:
        tokenizer = modules["tokenizer"]
        tokenizer.lineage = self.ancestry.lineage(tokenizer, self.run)
        tokenizer.save_pretrained(folder)

    def example(self, count: int) -> Batch:
        sides = None if self.cached else self.tokenizer.shape.sides
        return blank_batch(count, self.data, sides)

    def facts(self) -> Facts:
        spec, sides = self.tokenizer.spec(), self.tokenizer.shape.sides
        unit = Facts(sides=sides).unit
        lines: dict[str, object] = {
            f"{name} parameters": f"{count:,}"
            for name, count in self.tokenizer.part_parameters().items()
        }
        for name, network in self.losses.networks.items():
            count = sum(p.numel() for p in network.parameters() if p.requires_grad)
            lines[f"{name} parameters"] = f"{count:,}"
        for name, sha256 in self.losses.teachers.items():
            lines[f"teacher {name}"] = f"sha256 {sha256}"
        lines |= {f"init {number}": line for number, line in enumerate(self.started, 1)}
        lines |= {
            f"tokens/{unit}": spec.length,
            f"bits/{unit}": spec.bits,
            "bpp": f"{spec.bits / math.prod(sides):.4f}",
        }
        return Facts(spec, sides, lines)

    def record(self) -> dict[str, str]:
        facts = {
            f"teacher {name} (sha256)": sha256 for name, sha256 in self.losses.teachers.items()
        }
        facts |= {f"frozen {name} (sha256)": sha256 for name, sha256 in self.losses.frozen.items()}
        if self.config.tokenizer.text is not None:
            encoder = self.tokenizer.text_encoder
            facts[f"text encoder {encoder.name} (sha256)"] = encoder.sha256
        return facts | self.ancestry.record()


def _inside(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _check_names(
    tokenizer: Tokenizer, key: str, parts: Iterable[str], others: Collection[str] = ()
) -> None:
    """Every name must be that of a part, or of a module inside one, or one of the others."""
    modules = dict(tokenizer.named_modules())
    for part in parts:
        if not part or (part not in modules and part not in others):
            raise ConfigError(
                f"task.{key}: '{part}' names no part; expected encoder, quantizer, decoder or a "
                "module inside one, such as encoder.patch_embed"
            )
