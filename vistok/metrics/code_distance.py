"""Distances between the code usage of two sets of token sequences.

Of frequencies p and q of the codes, total variation is sum |p - q| / 2, and the Jensen-Shannon
divergence H((p + q) / 2) - (H(p) + H(q)) / 2, in bits: both 0..1, 0 for equal frequencies. Two sets
of finite size always differ: compare with the distance of two sets that ought to be alike.

Letters: n sequences, L positions, C codes of a position that are counted apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.tokens import TokenSpec

JOINT_LIMIT = 2**20  # codes of a branch: beyond it each factor is counted by itself


class CodeDistance(NamedTuple):
    total_variation: float
    jensen_shannon: float  # bits


class CodeColumns(NamedTuple):
    """How the factors of a position become codes that are counted apart."""

    groups: tuple[tuple[int, ...], ...]  # the factors of each code
    sizes: tuple[int, ...]  # codes of each
    what: str  # for notes

    def of(self, indices: Tensor, vocab: tuple[int, ...]) -> Tensor:
        """indices [n, L, F] -> codes [n, L, C] int64, fastest digit first."""
        columns = []
        for group in self.groups:
            code, size = torch.zeros_like(indices[..., 0], dtype=torch.int64), 1
            for factor in group:
                code, size = code + indices[..., factor].long() * size, size * vocab[factor]
            columns.append(code)
        return torch.stack(columns, -1)


def code_columns(spec: TokenSpec) -> CodeColumns:
    """The codes of a spec: one for each branch, or one for each factor where a branch has more
    than `JOINT_LIMIT` codes."""
    if not spec.vocab:
        raise InputError("continuous tokens have no codes; expected a spec with a vocab")
    share = len(spec.vocab) // spec.branches
    sizes = [math.prod(spec.vocab[b * share : (b + 1) * share]) for b in range(spec.branches)]
    if max(sizes) > JOINT_LIMIT and share > 1:
        alone = tuple((f,) for f in range(len(spec.vocab)))
        return CodeColumns(alone, tuple(spec.vocab), f"mean over {len(alone)} factors")
    groups = tuple(tuple(range(b * share, (b + 1) * share)) for b in range(spec.branches))
    what = f"mean over {spec.branches} codebooks" if spec.branches > 1 else "one codebook"
    return CodeColumns(groups, tuple(sizes), what)


def code_distance(a: Tensor, b: Tensor, by_position: bool = False) -> CodeDistance:
    """Distance of codes [n, L, C] and [m, L, C], a mean over C; -1 is a position that is absent.

    Args:
        by_position: frequencies of pairs of position and code; for whole sequences this is the
            mean over positions of the distances at each.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise InputError(
            f"codes of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected [n, L, C], [m, L, C]"
        )
    found = [
        _distance(*(_listed(side[..., column], by_position) for side in (a, b)))
        for column in range(a.shape[2])
    ]
    total, shannon = (math.fsum(values) / len(found) for values in zip(*found, strict=True))
    return CodeDistance(total, shannon)


def _listed(codes: Tensor, by_position: bool) -> Tensor:
    """[n, L] -> [t, 1 or 2]: the codes that are present, with their positions if they count."""
    present = codes >= 0
    if not bool(present.any()):
        raise InputError("a set without tokens has no code frequencies; expected one or more")
    found = codes[present][:, None]
    if by_position:
        position = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
        found = torch.cat([position[present][:, None], found], 1)
    return found


def _distance(a: Tensor, b: Tensor) -> CodeDistance:
    """Rows that are equal are one outcome."""
    place = torch.cat([a, b]).unique(dim=0, return_inverse=True)[1]
    most = int(place.max()) + 1
    p, q = (
        torch.bincount(one, minlength=most).double() / len(one)
        for one in place.split([len(a), len(b)])
    )
    shannon = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return CodeDistance(float((p - q).abs().sum()) / 2, max(0.0, shannon))


def _entropy(share: Tensor) -> float:
    share = share[share > 0]
    return float(-(share * share.log2()).sum())
