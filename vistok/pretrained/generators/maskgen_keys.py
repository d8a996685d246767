"""Key table of MaskGen-VQ's official layout (see `maskgen`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vistok.generators import Generator
from vistok.pretrained.base import Entry, Stack, own, pair, same, squeeze
from vistok.pretrained.generators.rar import swapped

CLASSES = 1000  # whose rows the table of the releases keeps
TABLE, ALIAS = "embeddings.weight", "lm_head.weight"


@dataclass(frozen=True)
class Table:
    """The embedding table: codes, mask token, rows that nothing reads; a tied head repeats it."""

    codes: int
    tied: bool
    borrowed: bool = False

    @property
    def theirs(self) -> tuple[str, ...]:
        return (TABLE, ALIAS) if self.tied else (TABLE,)

    @property
    def names(self) -> tuple[str, ...]:
        return ("embed.0.weight", "mask_token")

    @property
    def _spare(self) -> str:
        return f"{TABLE}[{self.codes + 1}:]"

    def read(self, *parts: Tensor) -> dict[str, Tensor]:
        if any(not torch.equal(part, parts[0]) for part in parts):
            raise RuntimeError(f"differs from {ALIAS}, which is tied to it")
        return {
            "embed.0.weight": parts[0][: self.codes],
            "mask_token": parts[0][self.codes : self.codes + 1],
        }

    def inert(self, *parts: Tensor) -> dict[str, Tensor]:
        return {self._spare: parts[0][self.codes + 1 :].clone()}

    def write(self, own: Mapping[str, Tensor], inert: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        rows = [own[name] for name in self.names]
        spare = inert.get(self._spare)
        if spare is None:  # trained here
            spare = rows[0].new_zeros(CLASSES + 1, rows[0].shape[1])
        table = torch.cat([*rows, spare.to(rows[0])])
        return tuple(table for _ in self.theirs)


def key_table(config: Generator) -> list[Entry | Stack | Table]:
    """The whole key table of a model."""
    tied, depth = config.config.tied, config.config.trunk.depth
    table = [
        Table(config.inner.vocab[0], tied),
        *([] if tied else pair("head", "lm_head")),
        *own(*(f"condition.{name}" for name in ("empty", "empty_mask", "empty_pooled"))),
        *pair("condition.project_text", "text_embed_proj"),
        *pair("condition.project_pooled", "cond_pooled_proj"),
        same("trunk.positions", "pos_embed", **squeeze(0)),
        *_scale_first("trunk.modulation.proj", "norm.linear"),
    ]
    for i in range(depth):
        ours, theirs, last = f"trunk.blocks.{i}", f"blocks.{i}", i == depth - 1
        table += pair(f"{ours}.image.modulation.proj", f"{theirs}.norm1.linear")
        table += _layers(f"{ours}.image", theirs, ("to_{}", "to_out.0", "ff"))
        ordered = _scale_first if last else pair
        table += ordered(f"{ours}.text.modulation.proj", f"{theirs}.norm1_context.linear")
        names = ("add_{}_proj", "to_add_out", "ff_context")
        table += _layers(f"{ours}.text", theirs, names, gives_only=last)
    return table


def _layers(
    ours: str, theirs: str, names: tuple[str, str, str], gives_only: bool = False
) -> list[Entry]:
    """Attention and feed-forward layers of one stream of a block."""
    maps, out, mlp = names
    letters = "kv" if gives_only else "qkv"
    table = [
        Entry(
            f"{ours}.{letters}.{kind}",
            tuple(f"{theirs}.attn.{maps.format(letter)}.{kind}" for letter in letters),
            load=lambda *parts: torch.cat(parts),
            save=lambda tensor, count=len(letters): tensor.chunk(count),
        )
        for kind in ("weight", "bias")
    ]
    if gives_only:
        return table
    table += pair(f"{ours}.out", f"{theirs}.attn.{out}")
    return [
        *table,
        *pair(f"{ours}.mlp.up", f"{theirs}.{mlp}.net.0.proj"),
        *pair(f"{ours}.mlp.out", f"{theirs}.{mlp}.net.2"),
    ]


def _scale_first(ours: str, theirs: str) -> list[Entry]:
    """A modulation whose official layer gives scales, then shifts."""
    return [
        same(
            f"{ours}.{kind}",
            f"{theirs}.{kind}",
            load=swapped,
            save=lambda tensor: (swapped(tensor),),
        )
        for kind in ("weight", "bias")
    ]
