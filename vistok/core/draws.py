"""Sampled outcomes that stochastic parts obey: drawn outside the arithmetic, keyed, and passed in.

`draws=None` is evaluation. Outcomes of the token sequence are shared: a regularizer fills a field,
and whichever part it concerns obeys. Outcomes that one part fills and obeys alone stand below that
part's name, so that two parts may both want noise.
Letters: B batch, N latents, L token positions, F factors, P branches, S blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.selection import Record

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PartDraws(Record):
    """Outcomes of one part; a field that is None was not sampled."""

    uniform: Tensor | None = None  # [B, ...] in [0, 1): stochastic VQ, Bernoulli bits
    chosen: Tensor | None = None  # [B, L, F] int64: codes, imposed instead of sampled
    noise: Tensor | None = None  # like the tensor that it is added to
    time: Tensor | None = None  # [B] in [0, 1], or of each of S cells [B, S]: flow, diffusion
    order: Tensor | None = None  # [B, L] int64: order of generation
    mask: Tensor | None = None  # [B, L] bool: positions to be predicted
    given: Tensor | None = None  # [B] int64: first frames of a clip that are given
    given_time: Tensor | None = None  # [B] in [0, 1]: noise on those frames

    def map(self, function: Map) -> PartDraws:
        return replace(self, **_mapped(self, function))


@dataclass(frozen=True)
class Draws(Record):
    """Outcomes of one training step for B samples; a field that is None was not sampled."""

    keep: Tensor | None = None  # [B] | [B, S] int64: kept prefix (nested dropout, tail token drop)
    present: Tensor | None = None  # [B, N] bool: any other mask over latents
    levels: Tensor | None = None  # [B, S] bool: blocks that count (level dropout)
    ranks: Tensor | None = None  # [B, L, P] int64: 0 = clean, r = r-th nearest code
    top_rank: int | None = None  # no rank is larger, in whatever step: a shape must not vary
    null: Tensor | None = None  # [B] bool: condition dropout
    parts: Mapping[str, PartDraws] = field(default_factory=dict)
    """Outcomes by the part that fills and obeys them: input_space, quantizer, decoder, loss.NAME,
    generator."""

    def part(self, name: str) -> PartDraws:
        """The outcomes of one part; empty if it sampled nothing."""
        return self.parts.get(name, PartDraws())

    def map(self, function: Map) -> Draws:
        """Apply `function` to every tensor that was sampled."""
        parts = {name: part.map(function) for name, part in self.parts.items()}
        return replace(self, parts=parts, **_mapped(self, function))

    def to(self, device: torch.device | str) -> Draws:
        # What is not pinned is staged first, and staging may wait for the device.
        pin = torch.device(device).type == "cuda"
        return self.map(
            lambda tensor: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=True)
        )

    def join(self, other: Draws, owner: str = "") -> Draws:
        """The outcomes of both.

        Raises ValueError for a field, or a part, that both filled: two would fight over it.
        """
        names = [f.name for f in fields(self) if f.name != "parts"]
        theirs = {n: value for n in names if (value := getattr(other, n)) is not None}
        twice = [n for n in theirs if getattr(self, n) is not None]
        twice += [n for n in other.parts if n in self.parts]
        if twice:
            raise InputError(f"two parts fill '{twice[0]}' ({owner} is the second); keep one")
        return replace(self, parts={**self.parts, **other.parts}, **theirs)


def picked(shares: Tensor, uniform: Tensor) -> Tensor:
    """shares [..., K] that add up to about 1, uniform [...] in [0, 1) -> indices [...] int64: for
    each row the one whose share, cumulated, holds the number. Shares [K] serve all rows."""
    edges = shares.cumsum(-1).expand(*uniform.shape, -1).contiguous()
    place = uniform[..., None] * edges[..., -1:]
    found = torch.searchsorted(edges, place, right=True)[..., 0]
    return found.clamp_(max=shares.shape[-1] - 1)


def _mapped(record: Draws | PartDraws, function: Map) -> dict[str, Tensor]:
    sampled = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: function(v) for name, v in sampled.items() if isinstance(v, Tensor)}
