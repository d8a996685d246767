"""Residual quantization at one resolution (RQ-VAE, arXiv 2203.01941; SoundStream, 2107.03312).

Every latent is coded `levels` times. Its codes are blocks of tokens that follow one another, coarse
codes first, or factors of one token (the depth of RQ-VAE's generator).
Letters: B batch, N latents, S levels, F factors and P branches of a level, d code width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.shapes import Grid, Layout
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.base import Quantizer
from vistok.quantizers.compose.levels import Levels, LevelsConfig
from vistok.runtime.modes import evaluating


class ResidualConfig(LevelsConfig):
    kind: Literal["residual"] = "residual"
    levels: int = Field(default=4, ge=1, le=256)
    """S: codes of each latent."""
    shared: bool = True
    """One codebook for all levels (RQ-VAE), or one for each (SoundStream)."""
    arrange: Literal["blocks", "factors"] = "blocks"
    """Codes of a latent: blocks of tokens, of which the first so many decode too, or factors of one
    token. The latter takes latents on any grids, and decoders that serve prefixes."""

    @classmethod
    def tiny(cls) -> ResidualConfig:
        atom = VQConfig(codebook_size=16, dim=4, l2_norm=False)
        return cls(levels=2, quantizer=atom, shared=False)


@register("quantizer", ResidualConfig)
class Residual(Levels):
    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(config, config.levels, config.shared)
        self.factors = config.arrange == "factors"
        if self.factors:
            self.vocab, self.branches = self.vocab * self.count, self.branches * self.count

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        if self.factors:
            layout = Quantizer.layout(self, grids, stored)
            spec = layout.spec.model_copy(update={"branches": self.branches})
            return replace(layout, spec=spec)
        if stored is not None or len(grids) != 1:
            raise InputError(
                f"residual quantizes one grid, all of it; got latents on {len(grids)} grids"
                + (f" of which {stored} are stored" if stored is not None else "")
                + ": set arrange=factors, or for branches put it inside {kind: product, split: "
                "grids}"
            )
        return self.set_levels(grids[0], (tuple(grids[0]),) * self.count)

    def down(self, rest: Tensor, level: int) -> Tensor:
        return rest

    def up(self, codes: Tensor, level: int) -> Tensor:
        return codes

    # -- factors: the same sums, with levels side by side instead of one after another ------------

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        if not self.factors:
            return super().quantize(latents, draws)
        self._fit(latents.values.shape[1])
        made = super().quantize(latents, replace(draws, keep=None))  # a prefix is the decoder's
        side = lambda x: torch.cat(x.chunk(self.count, dim=1), dim=2)
        return replace(made, indices=side(made.indices), queries=side(made.queries))

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        if not self.factors:
            return super().rebuilt(indices, draws)
        self._fit(indices.shape[1])
        rows = torch.cat(indices.chunk(self.count, dim=2), dim=1)
        return super().rebuilt(rows, replace(draws, keep=None))

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        if self.factors:
            return Quantizer.partial(self, indices, blocks, onto)
        return super().partial(indices, blocks, onto)

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        if not self.factors:
            return super().neighbours(queries, count)
        parts = enumerate(queries.chunk(self.count, dim=2))
        return torch.cat([self.atom(level).neighbours(own, count) for level, own in parts], dim=2)

    def remember(self, quantized: Quantized) -> None:
        if self.factors:
            rows = torch.cat(quantized.queries.chunk(self.count, dim=2), dim=1)
            self._fit(quantized.queries.shape[1])
            quantized = replace(quantized, queries=rows)
        super().remember(quantized)

    def _fit(self, latents: int) -> None:
        self.grid, self.blocks = (latents,), ((latents,),) * self.count

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Codebooks level by level, each from what the ones before it miss. One that all levels
        share is made from the latents first, then from these and what its own codes miss."""
        if not self.wants_data:
            return
        rest = latents.values.float()
        if self.config.normalize:
            rest = torch.nn.functional.normalize(rest, dim=-1, eps=1e-12)
        if len(self.atoms) == 1:
            self.atom(0).initialize(replace(latents, values=rest), rng.child("level0"))
        wanted = []
        for level in range(self.count):
            atom, factor = self.atom(level), self.config.magnitude**level
            own = replace(latents, values=rest / factor)
            wanted.append(own.values)
            if len(self.atoms) > 1:
                atom.initialize(own, rng.child(f"level{level}"))
            with evaluating(atom):
                rest = rest - atom.lookup(atom.search(own)[0]) * factor
        if len(self.atoms) == 1:
            rows = torch.cat(wanted, dim=1)
            self.atom(0).initialize(Latents(rows, ((rows.shape[1],),)), rng)
