"""NAR: tokens of a grid from near to far, all cells of one distance at once
(Neighboring Autoregressive Modeling, arXiv 2503.10696).

The distance of a cell is its Manhattan distance to the first cell; cells of one distance are a
plane, and a plane is sampled in one pass: 2g - 1 passes for g x g tokens, T + H + W - 2 for those
of a clip. A cell is predicted by its neighbours on the plane before, one along each axis: the
head of an axis predicts the next cell along it, and a cell takes the mean of the logits that
reach it. The first cell takes the mean of all heads at the condition's last token.

Training reads the condition and all tokens at their own places, without a shift: a position sees
the condition and every cell that is no farther than itself, its whole plane too. That is no leak,
since it predicts cells of the next plane. Given the planes before it, the cells of a plane are
independent, so the likelihood is exact.
Letters: A axes, L cells, C condition tokens, W width, R rows (guidance doubles B), n slots.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.generators.axis_heads import OF_AXES, AxisHeads
from vistok.generators.captions import SeenText
from vistok.generators.factor_sampling import FactorSampling
from vistok.generators.guidance import guide
from vistok.generators.orders import cells_before, near_to_far
from vistok.generators.sampling import choose
from vistok.generators.sequential import SequentialConfig, SequentialGenerator
from vistok.layers.dropout import Dropout
from vistok.layers.masks import with_more
from vistok.layers.norms import make_norm
from vistok.layers.positions import grid_positions, rotary_table, sequence_sincos
from vistok.layers.transformer import Transformer, TransformerConfig
from vistok.tokens import Tokens, TokenSpec


class NeighbouringSampling(FactorSampling):
    """Sampling settings; schedules of guidance go by the share of passes that are done."""

    cache: bool = True
    """Keep keys and values of nearer planes; false runs all of them at every pass."""


class NeighbouringConfig(SequentialConfig):
    kind: Literal["neighbouring"] = "neighbouring"
    transformer: TransformerConfig = TransformerConfig(
        norm="rmsnorm", norm_eps=1e-5, mlp="swiglu", mlp_ratio=8 / 3, bias=False
    )
    """Blocks up to the head of the last axis; `extra_blocks` come behind them."""
    grid: tuple[int, ...] | None = None
    """Sides (h, w) or (t, h, w) in which the tokens lie, in raster order; null = those of the
    spec, blocks of equal frames being one clip. A 1D sequence needs them: [4, 16, 16] for the
    1,024 tokens of LARP."""
    extra_blocks: tuple[int, ...] | None = None
    """Blocks that the head of each further axis reads behind those of the one before it, from the
    last but one axis to the first; null = one each (NAR: right, below, next frame)."""
    positions: Literal["rope", "learned", "sincos"] = "rope"
    """Places of the tokens. rope: rotary, on the axes of the grid; learned: a table (NAR for
    clips); sincos: a fixed table over the place in the sequence."""
    rope_base: float = Field(default=10000.0, gt=1, le=1e12, allow_inf_nan=False)
    """Longest period of positions=rope, over 2 pi."""
    condition_positions: Literal["before", "zero"] = "zero"
    """Rotary positions of the condition's tokens. before: -1, -2, ... on every axis, from the first
    cell backward; zero: none, and their rows of the table are zero instead, so that queries and
    keys of these tokens vanish, and all look at them evenly (LlamaGen and NAR)."""
    token_dropout: float | None = Field(default=None, ge=0, lt=1)
    """Share of activations of the embeddings that training drops, keyed by sample; null =
    transformer.dropout."""
    sampling: NeighbouringSampling = NeighbouringSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> NeighbouringConfig:
        return cls(transformer=TransformerConfig.tiny())

    @model_validator(mode="after")
    def _readable(self) -> NeighbouringConfig:
        if self.transformer.modulation is not None:
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: nothing modulates the "
                "blocks of kind=neighbouring; leave it out"
            )
        if self.head is not None and self.head not in OF_AXES:
            raise InputError(
                f"head={self.head}: predictions of several heads are averaged; expected one of "
                f"{', '.join(OF_AXES)}"
            )
        if any(side < 1 for side in self.grid or ()) or self.grid == ():
            raise InputError(f"grid={self.grid}: expected sides of 1 or more")
        if any(count < 0 for count in self.extra_blocks or ()):
            raise InputError(f"extra_blocks={self.extra_blocks}: expected counts of 0 or more")
        return self


@register("generator", NeighbouringConfig)
class Neighbouring(SequentialGenerator):
    """Predicts each cell of a grid from its neighbours on the plane before it."""

    masks_text = True

    def __init__(
        self, config: NeighbouringConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec, codes)
        width, eps = config.transformer.width, config.transformer.norm_eps
        self.transformer.norm = nn.Identity()  # each head has a norm of its own
        make = lambda: make_norm(
            config.transformer.norm, width, eps, config.transformer.norm_affine
        )
        self.norms = nn.ModuleList(make() for _ in self.grid)
        own = config.token_dropout
        self.dropout = Dropout(config.transformer.dropout if own is None else own)
        self._make_positions()
        self._make_tables()
        self.initialize()

    @classmethod
    def unable(cls, config: NeighbouringConfig, spec: TokenSpec) -> str | None:
        grid = _grid(config, spec)
        if grid is None:
            return (
                "models tokens on a grid (h, w) or (t, h, w), and these have no neighbours unless "
                "grid= gives their sides"
            )
        if math.prod(grid) != spec.length:
            return f"models a grid of {grid}, {math.prod(grid)} cells, not {spec.length} tokens"
        extra = config.extra_blocks
        if extra is not None and len(extra) != len(grid) - 1:
            return f"has extra_blocks={extra}, and a grid of {grid} takes {len(grid) - 1} of them"
        return super().unable(config, spec)

    # -- the network ----------------------------------------------------------------------------

    def make_trunk(self) -> nn.Module:
        """The blocks in front of the first head, and the extra ones of the others."""
        if self.texts is not None:
            return super().make_trunk()  # raises: no block reads text
        config = self.config
        self.grid = _grid(config, self.spec)
        extra = (1,) * (len(self.grid) - 1) if config.extra_blocks is None else config.extra_blocks
        depth = config.transformer.depth
        # The last axis comes first: its head reads the state behind `depth` blocks.
        self.depths = tuple(depth + sum(extra[:i]) for i in reversed(range(len(self.grid))))
        return Transformer(config.transformer.model_copy(update={"depth": max(self.depths)}))

    def new_head(self, bias: bool) -> nn.Module:
        width = self.config.transformer.width
        return AxisHeads(len(self.grid), self.head_kind, width, self.inner.vocab, bias)

    def start(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """The condition's tokens [B, C, W]."""
        return self.condition(condition, batch, null)

    def states(
        self, x: Tensor, slots: Tensor, mask: Tensor | None, caches: list | None = None
    ) -> list[Tensor]:
        """Normalized hidden states [R, n, W] that the head of each axis reads.

        Args:
            x: [R, n, W] embeddings of slots: condition tokens, and cells behind them.
            slots: [n] their numbers; cell i in raster order is slot C + i.
            mask: bool [n, m] or [R, 1, n, m], who sees whom of the cached slots and these; None =
                all see all.
        """
        x, rotary = self.dropout(x), None
        if self.config.positions == "rope":
            rotary = (self.rotary_cos[slots], self.rotary_sin[slots])
        else:
            x = x + self.position_table[slots].to(x.dtype)
        _, seen = self.transformer.tapped(
            x, set(self.depths), rotary=rotary, mask=mask, caches=caches
        )
        return [norm(seen[depth]) for norm, depth in zip(self.norms, self.depths, strict=True)]

    def neighbours(
        self,
        indices: Tensor,
        condition: Condition,
        null: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> list[Tensor]:
        """Hidden states [B, L, W] of each axis: of the cell before every cell along it.

        Args:
            indices: [B, L, F]. null: as in `start`.
            kept: [B, L] bool, cells that are there, a prefix; None = all.
        """
        start = self.start(condition, len(indices), null)
        x = torch.cat([start, self.embed(indices)], dim=1)
        seen = self.texts_of(condition, len(indices), null).get("seen")
        slots = torch.arange(x.shape[1], device=x.device)
        states = self.states(x, slots, self._mask(slots, seen, kept))
        return [state[:, slot] for state, slot in zip(states, self.before, strict=True)]

    def logits(self, indices: Tensor, condition: Condition) -> Tensor:
        """[B, L, sum of the vocabulary]: averaged logits of every cell, given all nearer ones."""
        return self.head.logits(self.neighbours(indices, condition), self.share)

    # -- training -------------------------------------------------------------------------------

    def nats(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Negative log-likelihood [B, L] of each cell; 0 behind the prefix of cut tokens, which
        nothing sees."""
        indices = self.regrouped(tokens).indices.long()
        kept = None if tokens.keep is None else tokens.kept()
        null = None if draws is None else draws.null
        states = self.neighbours(indices, condition, null, kept)
        nats = self.head.nats(states, self.share, indices)
        return nats if kept is None else nats * kept

    # -- sampling -------------------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        return False  # cells of a prefix depend on nearer ones behind it

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        spec, factors, samples = self.spec, len(self.inner.vocab), len(index)
        start = self.start(condition, samples)
        seen = self.texts_of(condition, samples).get("seen")
        if settings.guided:
            start = torch.cat([start, self.start(Condition(), samples)])
            seen = None if seen is None else seen.join(seen)
        device, front = start.device, start.shape[1]
        planes = [torch.tensor(cells, device=device) for cells in near_to_far(self.grid)]
        u = Rng(seed, "sampling").uniform(index, (spec.length, factors)).to(device)
        chosen = torch.zeros(samples, spec.length, factors, dtype=torch.long, device=device)
        known = None if condition.known is None else self.regrouped(condition.known).indices.long()
        each, caches = settings.of_factors(factors), None
        if settings.cache:
            capacity = front + spec.length - len(planes[-1])
            caches = self.transformer.new_caches(len(start), capacity, start)
        new, slots = start, torch.arange(front, device=device)
        x, fed = start, slots  # everything so far, plane after plane
        for number, cells in enumerate(planes):
            if settings.cache:
                mask = None  # a plane sees all slots so far, but hidden ones of the condition
                if number == 0:
                    mask = self._mask(slots, seen)
                elif seen is not None:
                    mask = with_more(seen.mask, len(fed))[:, None, None]
                states = self.states(new, slots, mask, caches)
            else:
                states = self.states(x, fed, self._mask(fed, seen))
                states = [state[:, -len(slots) :] for state in states]
            done = number / len(planes)

            def pick(logits: Tensor, f: int, cells: Tensor = cells, done: float = done) -> Tensor:
                rows = guide(logits, each[f].scale_at(done), samples).flatten(0, 1)
                return choose(rows, u[:, cells, f].flatten(), each[f]).view(samples, -1)

            near = self.near[:, cells]
            states = [state[:, rows] for state, rows in zip(states, near, strict=True)]
            codes = self.head.sample(states, self.share[:, cells], pick)
            if known is not None:
                taken = condition.known_mask[:, cells, None]
                codes = torch.where(taken, known[:, cells], codes)
            chosen[:, cells] = codes
            new, slots = self.embed(codes).repeat(len(start) // samples, 1, 1), front + cells
            fed = torch.cat([fed, slots])
            x = x if settings.cache else torch.cat([x, new], dim=1)
        return self.tokens_of(chosen)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {**super().summary(), "passes/sample": sum(self.grid) - len(self.grid) + 1}

    def _mask(self, slots: Tensor, seen: SeenText | None, kept: Tensor | None = None) -> Tensor:
        """bool [n, n], or [R, 1, n, n]: who sees whom of slots [n].

        Args:
            seen: condition tokens that may be looked at; None = all.
            kept: [R, L] bool, cells that are there; None = all.
        """
        mask = self.mask[slots][:, slots]
        if seen is None and kept is None:
            return mask
        front, cells = self.condition.count, self.spec.length
        rows = len(kept) if seen is None else len(seen.mask)
        ones = lambda count: mask.new_ones(rows, count)
        columns = [ones(front) if seen is None else seen.mask]
        columns.append(ones(cells) if kept is None else kept.to(mask.device))
        there = torch.cat(columns, dim=1)[:, None, slots]
        # A slot sees itself in any case: a row without a key would have no softmax.
        return ((mask & there) | torch.eye(len(slots), dtype=torch.bool, device=mask.device))[
            :, None
        ]

    def _make_positions(self) -> None:
        config, front, cells = self.config, self.condition.count, self.spec.length
        width = config.transformer.width
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(front + cells, width) * 0.02)
        elif config.positions == "sincos":
            # Kept with the weights: how it is rounded differs between libraries.
            self.register_buffer("position_table", sequence_sincos(front + cells, width))
        else:
            places = grid_positions(self.grid)
            before = torch.arange(-front, 0.0)[:, None].expand(front, len(self.grid))
            head_dim = width // config.transformer.heads
            tables = rotary_table(torch.cat([before, places]), head_dim, config.rope_base)
            for name, table in zip(("rotary_cos", "rotary_sin"), tables, strict=True):
                if config.condition_positions == "zero":
                    table[:front] = 0.0
                self.register_buffer(name, table, persistent=False)

    def _make_tables(self) -> None:
        """Buffers: `mask` [C + L, C + L]; of each cell [A, L] `before`, the slot of its neighbour,
        `near`, that slot's row among those of its plane, and `share`, the neighbour's weight.
        Without a neighbour the weight is 0."""
        front, before = self.condition.count, cells_before(self.grid)
        distance = grid_positions(self.grid).sum(-1)
        rows = {cell: row for cells in near_to_far(self.grid) for row, cell in enumerate(cells)}
        place = torch.tensor([rows[cell] for cell in range(self.spec.length)])
        exists = before >= 0
        near = torch.where(exists, place[before.clamp(min=0)], 0)
        slot = torch.where(exists, front + before, front - 1)
        # All heads predict the first cell, from the last token of the condition.
        exists[:, 0], near[:, 0] = True, front - 1
        mask = torch.ones(front + len(distance), front + len(distance), dtype=torch.bool).tril()
        mask[front:, front:] = distance <= distance[:, None]
        tables = {"mask": mask, "before": slot, "near": near, "share": exists / exists.sum(0)}
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)


def _grid(config: NeighbouringConfig, spec: TokenSpec) -> tuple[int, ...] | None:
    """Sides of the grid in which the tokens lie; None if the spec has none and none are given.

    Blocks of one (h, w), or of (t, h, w), are the frames of one clip, whose raster order is theirs.
    """
    if config.grid is not None:
        return config.grid
    blocks = spec.blocks
    if len(blocks) == 1 and len(blocks[0]) > 1:
        return blocks[0]
    if {len(block) for block in blocks} <= {2, 3} and len({block[-2:] for block in blocks}) == 1:
        return (sum(math.prod(block[:-2]) for block in blocks), *blocks[0][-2:])
    return None
