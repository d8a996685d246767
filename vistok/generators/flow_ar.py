"""Next-X prediction of continuous tokens by flow matching (xAR, arXiv 2502.20388).

Tokens are vectors of a tokenizer without codes. They come in cells (`cells`), and each cell is
sampled by following a flow from noise, given the cells before it. In training every cell has a time
and noise of its own, x_t = t noise + (1 - t) clean, and looks at itself and at the *noisy* cells
before it: what it learns from is then as imperfect as what it will be given (noisy context
learning). The loss is the squared error of the velocity noise - clean.
A cell's time and the condition modulate its positions; a cell that is finished is read once more at
time 0, and its keys and values are kept.
Letters: B batch, L positions, C channels, S cells, n positions of a cell, D width, R rows (guidance
doubles B).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator, GeneratorConfig
from vistok.generators.cell_sampling import CellSampling, FlowARSampling
from vistok.generators.cell_stage import CellStage, SecondStageConfig
from vistok.generators.cells import CellsConfig, cells_of
from vistok.generators.conditioning import ConditionTokens
from vistok.generators.latent_scale import LatentScaleConfig
from vistok.layers.attention import KVCache
from vistok.layers.flow.path import TimeConfig, interpolate, sample_times, uniform_numbers, velocity
from vistok.layers.modulation import Modulation, SinusoidsConfig, TimeEmbedding
from vistok.layers.positions import grid_positions
from vistok.layers.transformer import TransformerConfig, init_weights
from vistok.tokens import Tokens, TokenSpec

_EVALUATED = 8  # times of `evaluate`: the middles of equal parts of 0..1


class FlowARConfig(GeneratorConfig):
    kind: Literal["flow_ar"] = "flow_ar"
    transformer: TransformerConfig = TransformerConfig(
        norm="rmsnorm", norm_affine=False, mlp="geglu", mlp_hidden="two_thirds_once"
    )
    """Blocks of the network; they are modulated by vectors of their own width."""
    second: SecondStageConfig | None = None
    """Further blocks behind a norm, a linear layer and a position table of their own (xAR); null =
    none."""
    cells: CellsConfig = CellsConfig()
    position_table: bool = True
    """A learned vector of each position, in the order of generation."""
    rope: bool = True
    """Rotary positions: the coordinates of a token in its block, behind the number of the block if
    there are several."""
    rope_base: float = Field(default=10000.0, gt=1, allow_inf_nan=False)
    latents: LatentScaleConfig | None = LatentScaleConfig()
    """Scaling of the tokens' values; null = measured on the training data, a shift and a scale for
    each channel."""
    times: TimeConfig = TimeConfig()
    """Distribution of the training times, one for each cell."""
    time: SinusoidsConfig = SinusoidsConfig()
    """Embedding of times."""
    modulation_init: Literal["zero", "as_others"] = "zero"
    """Start of the layers that modulate: zero (adaLN-Zero), or as all other layers (xAR)."""
    sampling: FlowARSampling = FlowARSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> FlowARConfig:
        trunk = TransformerConfig(width=16, depth=1, heads=2)
        return cls(
            transformer=trunk,
            second=SecondStageConfig(depth=1),
            cells=CellsConfig(size=2),
            time=SinusoidsConfig(channels=8),
            sampling=FlowARSampling(steps=3),
        )

    @model_validator(mode="after")
    def _not_modulated(self) -> FlowARConfig:
        trunk = self.transformer
        if trunk.modulation is not None or trunk.modulation_kinds != 1:
            name = "modulation" if trunk.modulation is not None else "modulation_kinds"
            raise InputError(
                f"transformer.{name}={getattr(trunk, name)}: times and conditions modulate, by "
                "vectors as wide as the transformer; leave it out"
            )
        heads = None if self.second is None else self.second.heads
        if heads is not None and (trunk.width % heads or trunk.width // heads % 2):
            raise InputError(
                f"second.heads={heads}: transformer.width={trunk.width} must be a multiple of it "
                "with an even quotient"
            )
        return self

    @property
    def trunks(self) -> tuple[TransformerConfig, ...]:
        """The transformer of each stage."""
        first, second = self.transformer, self.second
        if second is None:
            return (first,)
        own = {"depth": second.depth, "heads": second.heads or first.heads}
        return first, first.model_copy(update=own)


@register("generator", FlowARConfig)
class FlowAR(Generator):
    """Samples cells of continuous tokens one after another, each by a flow from noise."""

    metrics = ("velocity_error",)
    judged_by = ("velocity_error", -1)

    def __init__(
        self, config: FlowARConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        if config.condition.text is not None:
            raise InputError(
                "condition.text: kind=flow_ar reads classes and pooled features alone; leave it out"
            )
        if config.latents is None:
            raise InputError(
                "latents=null: the scaling of the tokens is measured on training data, and there "
                "are none; give latents.shift and latents.scale"
            )
        width, channels = config.transformer.width, spec.dim
        self.cells = cells_of(config.cells, spec)
        self.lengths = tuple(map(len, self.cells))
        self.starts = tuple(itertools.accumulate(self.lengths, initial=0))
        order = torch.tensor(list(itertools.chain(*self.cells)))
        level = torch.tensor([i for i, cell in enumerate(self.cells) for _ in cell])
        for name, fact in (("order", order), ("back", order.argsort()), ("level", level)):
            self.register_buffer(name, fact, persistent=False)
        for name in ("shift", "scale"):
            self.register_buffer(name, config.latents.row(name, channels), persistent=False)
        own = config.condition
        # Without anything to read there is no vector for "nothing" either.
        self.condition = ConditionTokens(own, width) if own.classes or own.pooled else None
        self.time = TimeEmbedding(width, **config.time.model_dump())
        places, base = _places(spec)[order], config.rope_base if config.rope else None
        self.stages = nn.ModuleList(
            CellStage(trunk, width if i else channels, places, config.position_table, base, not i)
            for i, trunk in enumerate(config.trunks)
        )
        self.head = nn.Linear(width, channels)
        self._initialize()

    def _initialize(self) -> None:
        for module, trunk in zip(self.stages, self.config.trunks, strict=True):
            init_weights(module, trunk)
            if self.config.modulation_init == "as_others":
                for layer in module.modules():
                    if isinstance(layer, Modulation):
                        init_weights(layer.proj, trunk)
        init_weights(self.time, self.config.transformer)
        init_weights(self.head, self.config.transformer)
        std = self.config.transformer.init_std
        for table in (stage.table for stage in self.stages if stage.table is not None):
            nn.init.normal_(table, std=std)
        if self.condition is not None:
            nn.init.normal_(self.condition.label.weight, std=std)

    @classmethod
    def unable(cls, config: FlowARConfig, spec: TokenSpec) -> str | None:
        if spec.vocab:
            return f"models continuous tokens, and these are codes (vocab={spec.vocab})"
        if len({len(block) for block in spec.blocks}) > 1:
            return "models blocks of one number of axes"
        return None

    # -- the network ----------------------------------------------------------------------------

    def scaled(self, tokens: Tokens) -> Tensor:
        """What the network models of tokens: [B, L, C], in the order of generation."""
        values = tokens.values.to(self.shift.device).float()
        return ((values - self.shift) * self.scale)[:, self.order]

    def tokens_from(self, x: Tensor) -> Tokens:
        """The inverse of `scaled`: tokens of x [B, L, C] in the order of generation."""
        values = x.float()[:, self.back] / self.scale + self.shift
        return Tokens(self.spec, values=values)

    def vector(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """[B, D] of the condition, which the vectors of times are added to."""
        if self.condition is None:
            return self.head.weight.new_zeros(batch, self.config.transformer.width)
        return self.condition(condition, batch, null)[:, -1]

    def run(
        self,
        x: Tensor,
        time: Tensor,
        vector: Tensor,
        cells: slice,
        caches: list[list[KVCache]] | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Velocities [R, n, C] fp32 of some cells in a row.

        Args:
            x: [R, n, C]. time: [R, s] of the s cells. vector: [R, D].
            cells: which they are; those before them are in the caches, if there are any.
            seen: [R, n] bool, positions that exist; None = all.
        """
        first, last, _ = cells.indices(len(self.cells))
        rows = slice(self.starts[first], self.starts[last])
        vectors = vector[:, None] + self.time(time)
        lengths = self.lengths[cells]
        lengths = None if set(lengths) == {1} else lengths
        mask = None
        if last - first > 1 or seen is not None:
            level = self.level[rows]
            mask = level[:, None] >= level
            if seen is not None:
                own = torch.eye(len(level), dtype=torch.bool, device=level.device)
                mask = (mask & seen[:, None] | own)[:, None]
        x = x.to(self.head.weight.dtype)
        for i, stage in enumerate(self.stages):
            x = stage(x, vectors, rows, lengths, mask, None if caches is None else caches[i])
        return self.head(x).float()

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, a time of each cell [B, S], noise [B, L, C] in their order."""
        times, count = self.config.times, len(self.cells)
        if times.stratify == "none":
            uniform = rng.child("time").uniform(index, (count,))
        else:
            numbers = (uniform_numbers(index, rng.child(f"time/{i}"), times) for i in range(count))
            uniform = torch.stack(list(numbers), dim=1)
        noise = rng.child("noise").normal(index, (self.spec.length, self.spec.dim))
        own = PartDraws(time=sample_times(uniform, times), noise=noise)
        return super().draw(index, rng, progress).join(Draws(parts={"generator": own}))

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: squared error of the velocity, a mean over all numbers, of which those behind the
        prefix of cut tokens are 0. Without draws, at the times of `evaluate`, of what is kept."""
        if draws is None:
            total, count = self.evaluate(tokens, condition)["velocity_error"]
            return {"loss": (total / count).float()}
        own = draws.part("generator")
        error = self._errors(tokens, condition, own.time, own.noise, draws.null)
        return {"loss": error.mean()}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """velocity_error: squared error of the velocity of a number, over eight times of each cell,
        which go round the cells; noise is the same for every sample."""
        device, batch = self.head.weight.device, len(tokens)
        index, shape = torch.zeros(batch), (self.spec.length, self.spec.dim)
        turns, total = torch.arange(len(self.cells), device=device), 0.0
        for i in range(_EVALUATED):
            time = ((turns + i) % _EVALUATED + 0.5) / _EVALUATED
            noise = Rng(0, "flow_ar/evaluate", i).normal(index[:1], shape).expand(batch, *shape)
            error = self._errors(tokens, condition, time.expand(batch, -1), noise, None)
            total = total + error.double().sum()
        return {"velocity_error": (total, int(tokens.kept().sum()) * self.spec.dim * _EVALUATED)}

    def _errors(
        self,
        tokens: Tokens,
        condition: Condition,
        time: Tensor,
        noise: Tensor,
        null: Tensor | None,
    ) -> Tensor:
        """Squared errors [B, L, C] of the velocity; 0 behind the prefix of cut tokens."""
        clean = self.scaled(tokens)
        noise, time = noise.to(clean), time.to(clean)
        each = time[:, self.level]
        x = interpolate(clean.flatten(0, 1), noise.flatten(0, 1), each.flatten()).view_as(clean)
        seen = None if tokens.keep is None else tokens.kept().to(clean.device)[:, self.order]
        vector = self.vector(condition, len(clean), null)
        found = self.run(x, time, vector, slice(None), seen=seen)
        error = (found - velocity(clean, noise)).square()
        return error if seen is None else error * seen[..., None]

    # -- sampling -------------------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        # A cut inside each block is no prefix of the sequence.
        return self.spec.prefix in ("token", "block")

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        channels = self.spec.dim

        def noise(cell: int, step: int) -> Tensor:
            rng = Rng(seed, f"sampling/{cell}", step)
            return rng.normal(index, (self.lengths[cell], channels))

        return self.walked(condition, len(index), noise, settings, positions)

    def walked(
        self,
        condition: Condition,
        samples: int,
        noise: Callable[[int, int], Tensor],
        settings: FlowARSampling,
        positions: int | None = None,
    ) -> Tokens:
        """Samples made with given normal numbers.

        Args:
            samples: B. noise: of a cell and a step, [B, n, C]: step 0 is where the cell starts, the
                others belong to the steps before them, of a solver that adds noise.
            positions: how many of the first positions are wanted; None = all. Others are 0.
        """
        run = CellSampling(self, condition, samples, settings)
        wanted = self._needed(positions)
        done = [run.sample(cell, noise) for cell in range(wanted)]
        x = torch.cat(done, dim=1)
        x = nn.functional.pad(x, (0, 0, 0, self.spec.length - x.shape[1]))
        return self.tokens_from(x)

    def _needed(self, positions: int | None) -> int:
        """Number of the first cells that hold the first `positions` positions."""
        if positions is None:
            return len(self.cells)
        return 1 + max(i for i, cell in enumerate(self.cells) if min(cell) < positions)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        sizes = sorted(set(self.lengths))
        each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        return {
            **super().summary(),
            "cells": f"{len(self.cells)} of {each} tokens",
            "numbers per token": self.spec.dim,
        }


def _places(spec: TokenSpec) -> Tensor:
    """Coordinates [L, A] of positions in their blocks; of several blocks with their numbers."""
    several = len(spec.blocks) > 1
    rows = []
    for number, block in enumerate(spec.blocks):
        places = grid_positions(block)
        rows.append(nn.functional.pad(places, (1, 0), value=number) if several else places)
    return torch.cat(rows)
