"""Embeddings of a position's factors: learned tables, bits, or what the tokenizer makes of codes.

All map indices [B, n, F] to [B, n, W]. Letters: B batch, n positions, F factors, V vocabulary,
d width of a code vector, W width, R rows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError

EmbedKind = Literal["learned", "codes", "codes_init"]

TABLE_LIMIT = 2**18  # rows of a table of code vectors; larger vocabularies need learned factors


class FactorEmbedding(nn.ModuleList):
    """One table per factor; the embeddings of a position's factors are added up."""

    def __init__(self, vocab: tuple[int, ...], width: int) -> None:
        super().__init__(nn.Embedding(size, width) for size in vocab)

    def forward(self, indices: Tensor) -> Tensor:
        return sum(table(indices[..., f]) for f, table in enumerate(self))


class BitEmbedding(nn.Linear):
    """A linear map of bits (F factors of two values each), taken as -1 and 1, or as they are."""

    def __init__(self, bits: int, width: int, signs: bool = True) -> None:
        super().__init__(bits, width)
        self.signs = signs

    def forward(self, indices: Tensor) -> Tensor:
        bits = indices.to(self.weight.dtype)
        return super().forward(bits * 2 - 1 if self.signs else bits)


class CodeEmbedding(nn.Module):
    """A linear map of the tokenizer's code vectors.

    The table is saved with the generator, which therefore never needs its tokenizer again.

    Args:
        vocab: sizes of the factors, fastest digit first; how they are grouped does not matter.
        dim: d.
        frozen: keep the code vectors as they are; else they are where training starts from.
    """

    def __init__(self, vocab: tuple[int, ...], dim: int, width: int, frozen: bool) -> None:
        super().__init__()
        self.vocab, size = vocab, math.prod(vocab)
        if size > TABLE_LIMIT or dim < 1:
            raise InputError(
                f"a table of code vectors for vocab={vocab}, dim={dim} is not possible (limit "
                f"{TABLE_LIMIT} rows, dim of 1 or more); use embed=learned"
            )
        table = torch.zeros(size, dim)
        if frozen:
            self.register_buffer("table", table)
        else:
            self.table = nn.Parameter(table)
        self.project = nn.Linear(dim, width)

    @torch.no_grad()
    def fill(self, codes: nn.Module, vocab: tuple[int, ...]) -> None:
        """Copy the code vectors of a quantizer whose factors are `vocab`.

        Args:
            codes: offers lookup(indices [1, V, F]) -> [1, V, d], a position on its own.
        """
        size, dim = self.table.shape
        if self.table.is_meta:
            return
        rest, digits = torch.arange(size), []
        for base in vocab:
            digits.append(rest % base)
            rest = rest // base
        device = next((t.device for t in (*codes.parameters(), *codes.buffers())), None)
        vectors = codes.lookup(torch.stack(digits, dim=-1)[None].to(device))
        if tuple(vectors.shape) != (1, size, dim):
            raise InputError(
                f"the quantizer gives {list(vectors.shape[1:])} values for {size} codes of width "
                f"{dim}: it has no code vector per position; use embed=learned"
            )
        self.table.copy_(vectors[0])

    def forward(self, indices: Tensor) -> Tensor:
        row = torch.zeros_like(indices[..., 0], dtype=torch.long)
        for f in reversed(range(len(self.vocab))):
            row = row * self.vocab[f] + indices[..., f]
        return self.project(nn.functional.embedding(row, self.table))


class ValueEmbedding(nn.Module):
    """A linear map of the values that codes stand for, where each factor is one dimension of them
    (scalar quantization): no table of all F-tuples is needed.

    The values of each factor are saved with the generator, which never needs its tokenizer again.
    """

    def __init__(self, vocab: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.vocab = vocab
        self.register_buffer("table", torch.zeros(len(vocab), max(vocab)))
        self.project = nn.Linear(len(vocab), width)

    @torch.no_grad()
    def fill(self, codes: nn.Module) -> None:
        """Copy the values of a quantizer.

        Args:
            codes: offers lookup(indices [1, R, F]) -> [1, R, F], a dimension of each factor.
        """
        if self.table.is_meta:
            return
        sizes = torch.tensor(self.vocab)
        levels = torch.arange(max(self.vocab))[:, None].minimum(sizes - 1)
        mixed = (
            torch.arange(len(sizes)) * 3 + 1
        ) % sizes  # tells if a factor changes others' values
        rows = torch.cat([levels, mixed[None]])
        device = next((t.device for t in (*codes.parameters(), *codes.buffers())), None)
        values = codes.lookup(rows[None].to(device))[0].to(self.table)
        fits = values.shape == rows.shape
        if fits:
            self.table.copy_(values[:-1].T)
        if not fits or not torch.equal(self.values(rows[-1:])[0], values[-1]):
            raise InputError(
                f"embed=values: the quantizer's values, of width {values.shape[-1]}, are not one "
                f"number for each of the {len(self.vocab)} factors; use embed=learned"
            )

    def values(self, indices: Tensor) -> Tensor:
        """Indices [..., F] -> values [..., F]."""
        factors = torch.arange(len(self.vocab), device=indices.device)
        return self.table[factors, indices]

    def forward(self, indices: Tensor) -> Tensor:
        return self.project(self.values(indices))
