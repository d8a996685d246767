"""Use of the codes by a set of images: usage, perplexity, entropy, near-duplicate slots.

Everything is counted over the whole set, never per batch: a batch shows only a part of a codebook.
Entropies are those of the observed frequencies, in bits; few images bias them downwards.

Letters: B batch, L positions, F factors, K different values of a position.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.accumulator import Accumulator
from vistok.tokens import TokenSpec

JOINT_LIMIT = 2**20  # codes: beyond it a factorized vocabulary is counted factor by factor only
TABLE_LIMIT = 2**24  # positions x codes of the table behind the entropies per position (128 MB)
FACTOR_LIMIT = 2**22  # codes of a factor that has a table (32 MB); of larger ones those that occur
_LATER = 2**20  # rows of such codes that wait to be merged


class CodebookUse(BaseModel):
    """Result of `CodebookStats.compute`. None: not counted, the vocabulary is too large."""

    # Not a dataclass: torchmetrics would copy it and turn its [1] tensors into scalars.
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    images: int
    positions: int  # kept ones, over all images
    usage: float | None  # share of the K codes that occur, 0..1
    perplexity: float | None  # 2 ** entropy
    entropy: float | None  # bits
    counts: Tensor | None  # [K] int64; None also where K is beyond FACTOR_LIMIT
    sizes: tuple[int, ...]  # V_f: codes of each factor
    factor_usage: tuple[float, ...]  # the same for each factor alone
    factor_perplexity: tuple[float, ...]
    factor_entropy: tuple[float, ...]
    factor_counts: tuple[Tensor, ...]  # [V_f] int64 each; beyond FACTOR_LIMIT codes that occur
    position_entropy: Tensor | None  # [L] bits; 0 for a position that no image keeps
    redundancy: float  # share of slot pairs of an image that hold the same code; 0 for one slot


class CodebookStats(Accumulator):
    """`update(indices [B, L, F], kept [B, L])`; `compute() -> CodebookUse`."""

    def __init__(self, spec: TokenSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not spec.vocab:
            raise InputError("continuous tokens have no codebook; expected a spec with a vocab")
        self.spec, codes = spec, spec.codebook_size
        self.small = [f for f, size in enumerate(spec.vocab) if size <= FACTOR_LIMIT]
        self.large = [f for f, size in enumerate(spec.vocab) if size > FACTOR_LIMIT]
        self.joint = len(spec.vocab) == 1 or codes <= JOINT_LIMIT
        self.table = self.joint and spec.length * codes <= TABLE_LIMIT
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.int64)
        self.add_sum("factors", zeros(sum(spec.vocab[f] for f in self.small)))
        self.add_state("found", [], dist_reduce_fx="cat")  # [n, 3]: factor, code, hits
        self.add_sum("codes", zeros(codes if self.joint and len(spec.vocab) > 1 else 0))
        self.add_sum("places", zeros(spec.length * codes if self.table else 0))
        for name in ("positions", "equal_pairs", "pairs"):
            self.add_sum(name, zeros())

    def update(self, indices: Tensor, kept: Tensor | None = None) -> None:
        """indices [B, L, F] of any integer type; kept [B, L] bool: positions that count (all)."""
        spec, expected = self.spec, (self.spec.length, len(self.spec.vocab))
        if indices.ndim != 3 or tuple(indices.shape[1:]) != expected:
            raise InputError(
                f"indices have shape {tuple(indices.shape)}; expected [B, {expected[0]}, "
                f"{expected[1]}]"
            )
        if len(indices) == 0:
            return
        sizes = torch.tensor(spec.vocab, device=indices.device)
        indices = indices.long()
        if ((indices < 0) | (indices >= sizes)).any():
            raise InputError(
                f"indices run from {int(indices.min())} to {int(indices.max())}; expected each "
                f"factor below its size in vocab={spec.vocab}"
            )
        if kept is None:
            kept = indices.new_ones(indices.shape[:2], dtype=torch.bool)
        small = sizes[self.small]
        self._count("factors", (indices[..., self.small] + (small.cumsum(0) - small))[kept])
        self._find(indices, kept)
        if self.joint:
            code = (indices * _strides(spec.vocab, indices.device)).sum(-1)  # [B, L]
            if len(spec.vocab) > 1:
                self._count("codes", code[kept])
            if self.table:
                place = torch.arange(spec.length, device=indices.device) * spec.codebook_size
                self._count("places", (code + place)[kept])
        else:  # a number for each combination that occurs: enough to see which are equal
            code = indices.flatten(0, 1).unique(dim=0, return_inverse=True)[1].view(kept.shape)
        equal, pairs = _equal_pairs(code, kept)
        self.equal_pairs += equal.to(self.equal_pairs.device)
        self.pairs += pairs.to(self.pairs.device)
        self.positions += kept.sum().to(self.positions.device)
        self.images += len(indices)

    def _find(self, indices: Tensor, kept: Tensor) -> None:
        """Count the codes of large factors, of which only those that occur have a place."""
        for factor in self.large:
            codes, hits = indices[..., factor][kept].unique(return_counts=True)
            self.found.append(_rows(factor, codes, hits))
        later = sum(map(len, self.found[1:]))
        if self.large and later > max(_LATER, len(self.found[0])):  # seldom: twice as many a time
            self.found = [self._merged()]

    def _merged(self) -> Tensor:
        """[n, 3]: factor, code and all hits, each pair of factor and code once."""
        found = [self.found] if isinstance(self.found, Tensor) else self.found  # after a sync
        rows = torch.cat(found) if found else torch.zeros((0, 3), dtype=torch.int64)
        parts = []
        for factor in self.large:
            own = rows[rows[:, 0] == factor]
            codes, place = own[:, 1].unique(return_inverse=True)
            hits = torch.zeros_like(codes).index_add_(0, place, own[:, 2])
            parts.append(_rows(factor, codes, hits))
        return torch.cat(parts) if parts else rows

    def _count(self, name: str, numbers: Tensor) -> None:
        state = getattr(self, name)
        state += torch.bincount(numbers.flatten(), minlength=len(state)).to(state.device)

    def compute(self) -> CodebookUse:
        images, spec = self.seen(), self.spec
        tables = iter(self.factors.split([spec.vocab[f] for f in self.small]))
        rows = self._merged()
        factors = [
            rows[rows[:, 0] == f, 2] if f in self.large else next(tables)
            for f in range(len(spec.vocab))
        ]
        usage = [_usage(c, size) for c, size in zip(factors, spec.vocab, strict=True)]
        entropy = [_entropy(c) for c in factors]
        joint = None if not self.joint else (self.codes if len(spec.vocab) > 1 else factors[0])
        places = self.places.view(spec.length, -1) if self.table else None
        return CodebookUse(
            images=images,
            positions=int(self.positions),
            usage=None if joint is None else _usage(joint, spec.codebook_size),
            perplexity=None if joint is None else 2 ** _entropy(joint),
            entropy=None if joint is None else _entropy(joint),
            counts=None if joint is None or self.large else joint.clone(),
            sizes=spec.vocab,
            factor_usage=tuple(usage),
            factor_perplexity=tuple(2**e for e in entropy),
            factor_entropy=tuple(entropy),
            factor_counts=tuple(c.clone() for c in factors),
            position_entropy=(
                None if places is None else torch.tensor([_entropy(row) for row in places])
            ),
            redundancy=int(self.equal_pairs) / max(1, int(self.pairs)),
        )


def _strides(vocab: tuple[int, ...], device: torch.device) -> Tensor:
    """[F] place values of the factors, fastest digit first."""
    return torch.tensor([math.prod(vocab[:f]) for f in range(len(vocab))], device=device)


def _rows(factor: int, codes: Tensor, hits: Tensor) -> Tensor:
    """[n, 3]: the factor, its codes [n], their hits [n]."""
    return torch.stack([torch.full_like(codes, factor), codes, hits], dim=1)


def _usage(counts: Tensor, size: int) -> float:
    return int((counts > 0).sum()) / size


def _entropy(counts: Tensor) -> float:
    """Bits of the frequencies of [K] counts."""
    share = counts[counts > 0].double() / counts.sum().clamp_min(1)
    return max(0.0, float(-(share * share.log2()).sum()))


def _equal_pairs(code: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of kept slots of one image with the same code, and all such pairs: two counts.

    Summing over images first gives the mean over slot pairs of the share of images in which both
    agree, without a table of L x L pairs.
    """
    if (
        int(code.max()) >= FACTOR_LIMIT
    ):  # small numbers in their place: those below must not overflow
        code = code.unique(return_inverse=True)[1]
    image = torch.arange(len(code), device=code.device)[:, None]
    named = image * (code.max() + 1) + code  # one number for each (image, code)
    runs = named[kept].unique(return_counts=True)[1]
    slots = kept.sum(1)
    return (runs * (runs - 1) // 2).sum(), (slots * (slots - 1) // 2).sum()
