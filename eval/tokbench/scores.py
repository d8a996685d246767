"""Arithmetic of TokBench: how well a word was read, groups of relative size, and their means.

Each word and face carries its size relative to its image, from the benchmark's annotations. Groups
are half open, lower <= size < upper; what is smaller than the first or reaches the last belongs to
none. The published number is the mean of the three groups' means, so each group counts alike,
however few words it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.runtime.distributed import sum_

# Edges of the groups by the side of the square, `compute_all_metrics.py` of June 2025. The first
# release of that script had faces at (0, 0.1, 0.2, 1), (0, 0.05, 0.2, 1) and (0, 0.05, 0.1, 1).
TEXT_EDGES = {
    256: (0.02, 0.03, 0.04, 1.0),
    512: (0.01, 0.02, 0.03, 1.0),
    1024: (0.005, 0.01, 0.02, 1.0),
}
FACE_EDGES = {
    256: (0.1, 0.2, 0.3, 1.0),
    512: (0.05, 0.1, 0.2, 1.0),
    1024: (0.02, 0.05, 0.1, 1.0),
}


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: single letters inserted, removed or replaced, each at cost 1."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            replaced = before + (letter != other)
            before = row[j]
            row[j] = min(before + 1, row[j - 1] + 1, replaced)
    return row[-1]


def word_scores(truth: str, read: str) -> tuple[float, float]:
    """(1 if the word was read exactly, else 0; 1 - edit distance / length of the longer one).

    Case and accents count. Two empty words are alike.
    """
    longest = max(len(truth), len(read))
    near = 1 - edit_distance(truth, read) / longest if longest else 1.0
    return float(truth == read), near


@dataclass(frozen=True)
class Means:
    """Means of one measure."""

    groups: tuple[float | None, ...]  # None: nothing of that size
    mean: float | None  # of the groups; None if one of them is empty
    every: float  # over all words or faces, those in no group too


class Tally:
    """Sums of measures in groups of relative size.

    Args:
        edges: of the groups, ascending. names: of the measures.
    """

    def __init__(self, edges: Sequence[float], names: Sequence[str]) -> None:
        self.edges, self.names = tuple(edges), tuple(names)
        if len(self.edges) < 2 or list(self.edges) != sorted(set(self.edges)):
            raise InputError("edges of groups: expected two or more ascending numbers")
        # A row for each group and one for the rest; how many, then the sum of each measure.
        self.sums = torch.zeros((len(self.edges), 1 + len(self.names)), dtype=torch.float64)

    @property
    def states(self) -> Tensor:
        """All that `add` changes."""
        return self.sums

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the groups: "0.02-0.03", ..."""
        pairs = zip(self.edges, self.edges[1:], strict=False)
        return tuple(f"{low:g}-{high:g}" for low, high in pairs)

    @property
    def counts(self) -> tuple[int, ...]:
        """Of each group, and of what is in none."""
        return tuple(int(count) for count in self.sums[:, 0])

    def add(self, scored: Iterable[tuple[float, Sequence[float]]]) -> None:
        """Words or faces: the relative size of each, and its value of each measure."""
        pairs = list(zip(self.edges, self.edges[1:], strict=False))
        for size, values in scored:
            inside = [i for i, (low, high) in enumerate(pairs) if low <= size < high]
            group = inside[0] if inside else -1
            self.sums[group] += torch.tensor([1.0, *values], dtype=torch.float64)

    def reduce(self) -> Tally:
        """The same over all ranks."""
        total = Tally(self.edges, self.names)
        total.sums = sum_(self.sums.clone())
        return total

    def means(self, name: str) -> Means:
        """Means of a measure; InputError where nothing was added."""
        column = 1 + self.names.index(name)
        counts, sums = self.sums[:, 0], self.sums[:, column]
        if not float(counts.sum()):
            raise InputError("tokbench: no words or faces; expected one or more")
        found = tuple(
            float(total / count) if count else None
            for total, count in zip(sums[:-1], counts[:-1], strict=True)
        )
        known = [one for one in found if one is not None]
        mean = sum(known) / len(known) if len(known) == len(found) else None
        return Means(found, mean, float(sums.sum() / counts.sum()))
