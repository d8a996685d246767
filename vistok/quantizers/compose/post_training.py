"""Post-training quantization: codes for latents of an autoencoder that was trained without any.

The continuous quantizer goes on reading the encoder's output (`reads`: the mean of a VAE's
posterior, or the latents themselves); its numbers are shifted and scaled, and any quantizer with
codes rounds them. What it gives goes the same way back: the untouched decoder sees its own units.

    u = (z - shift) * scale;   z' = restored(quantizer(u)) / scale + shift

TokenBridge (arXiv 2503.16430) is this with scalar levels and scale 0.2325.
Letters: B batch, N latents, M values, L positions, F factors, C channels of the continuous tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Layout
from vistok.quantizers.atoms.scalar import ScalarConfig
from vistok.quantizers.base import Quantizer
from vistok.quantizers.continuous.none import NoneConfig

_LEAST = 1e-6  # a channel that hardly varies is not blown up


class PostTrainingConfig(Config):
    kind: Literal["post_training"] = "post_training"
    reads: Annotated[Any, PartOf("quantizer")] = NoneConfig()
    """The continuous quantizer that the autoencoder was trained with: none or kl."""
    sample: bool = False
    """Training reads samples of a posterior, as TokenBridge does everywhere, instead of its mean.
    Evaluation and `encode` take the mean."""
    normalize: Literal["channel", "global", "given"] = "channel"
    """Shift and scale: minus the mean and one over the standard deviation of each channel, or of
    all numbers together, measured on data and kept with the weights; or the two below."""
    shift: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    """Given shift and scale, for normalize=given."""
    quantizer: Annotated[Any, PartOf("quantizer")] = ScalarConfig()
    """The quantizer of the shifted and scaled numbers."""

    @classmethod
    def tiny(cls) -> PostTrainingConfig:
        return cls(reads=NoneConfig.tiny(), quantizer=ScalarConfig.tiny())


@register("quantizer", PostTrainingConfig)
class PostTraining(Quantizer):
    def __init__(self, config: PostTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.reads, self.quantizer = build(config.reads), build(config.quantizer)
        inner, dim = self.quantizer, self.reads.value_dim
        if self.reads.vocab or not inner.vocab:
            raise ConfigError(
                f"quantizer: post_training reads '{config.reads.kind}' and quantizes by "
                f"'{config.quantizer.kind}'; expected a continuous one (none, kl), and one with "
                "codes"
            )
        if inner.latent_dim != dim:
            raise ConfigError(
                f"quantizer: '{config.quantizer.kind}' quantizes {inner.latent_dim} channels, and "
                f"'{config.reads.kind}' gives {dim}; expected the same number"
            )
        inner.restored(torch.zeros(1, 1, inner.value_dim))  # an error for one that cannot
        self.latent_dim, self.value_dim = self.reads.latent_dim, dim
        self.vocab, self.branches, self.remedy = inner.vocab, inner.branches, inner.remedy
        self.loss_weights = {**self.reads.loss_weights, **inner.loss_weights}
        measured = config.normalize != "given"
        for name, value in (("shift", config.shift), ("scale", config.scale)):
            start = torch.full((dim,), 1.0 if measured and name == "scale" else value)
            self.register_buffer(name, start, persistent=measured)
        if measured:
            self.register_buffer("filled", torch.tensor(False))

    @property
    def wants_data(self) -> bool:
        unmeasured = self.config.normalize != "given" and not bool(self.filled)
        return unmeasured or self.quantizer.wants_data

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        layout = self.quantizer.layout(grids, stored)
        spec = layout.spec.model_copy(update={"dim": self.value_dim})
        return replace(layout, spec=spec, dim=self.value_dim)

    def normalized(self, z: Tensor) -> Tensor:
        """Continuous tokens [..., C] -> the numbers that are quantized."""
        return (z - self.shift) * self.scale

    def given_back(self, values: Tensor) -> Tensor:
        """Values of the inner quantizer [B, M, d] -> continuous tokens [B, M, C]."""
        return self.quantizer.restored(values) / self.scale + self.shift

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        drawn = [self.quantizer.draw(layout, index, rng.child("quantizer"), progress)]
        if self.config.sample:
            drawn.append(self.reads.draw(layout, index, rng.child("reads"), progress))
        found: dict[str, Tensor] = {}
        for one in filter(None, drawn):
            found |= {f.name: v for f in fields(one) if (v := getattr(one, f.name)) is not None}
        return PartDraws(**found) if found else None

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        """Losses are those of both, by their names."""
        read = self.reads.quantize(latents, draws)
        own = replace(latents, values=self.normalized(read.values))
        made = self.quantizer.quantize(own, draws)
        values = self.given_back(made.values)
        clean = values if made.clean is made.values else self.given_back(made.clean)
        losses = {**read.losses, **made.losses}
        return Quantized(values, clean, made.indices, made.queries, losses)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        read = self.reads.quantize(latents, Draws())
        return self.quantizer.search(replace(latents, values=self.normalized(read.values)))

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.given_back(self.quantizer.lookup(indices, keep))

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        return self.given_back(self.quantizer.rebuilt(indices, draws))

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        return self.given_back(self.quantizer.partial(indices, blocks, onto))

    def restored(self, values: Tensor) -> Tensor:
        raise InputError("post_training gives values of an autoencoder; it quantizes no other")

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        return self.quantizer.neighbours(queries, count)

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Shift and scale from latents of the global batch, then what the inner quantizer wants."""
        z = self.reads.quantize(replace(latents, values=latents.values.float()), Draws()).values
        if self.config.normalize != "given" and not bool(self.filled):
            over = (0, 1) if self.config.normalize == "channel" else (0, 1, 2)
            wide = z.double()
            self.shift.copy_(wide.mean(over))
            self.scale.copy_(1 / wide.std(over, correction=0).clamp(min=_LEAST))
            self.filled.fill_(True)
        if self.quantizer.wants_data:
            self.quantizer.initialize(replace(latents, values=self.normalized(z)), rng)

    def remember(self, quantized: Quantized) -> None:
        self.quantizer.remember(quantized)

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        return self.quantizer.after_step(rng)

    @torch.no_grad()
    def forget(self) -> None:
        self.quantizer.forget()
