"""Pairs of runs that are equal in tokens, bits or parameters: is one of the two better?

Whether a pair is equal is computed from the records of its runs, whatever their names say. A pair
that is not equal is told with its numbers and left out of the comparison, and then nothing holds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vistok.eval.study.claims.base import Reading, register_claim
from vistok.eval.study.claims.numbers import Numbers
from vistok.eval.study.claims.paired import Pair, PairsConfig, read_pairs

Size = Literal["tokens", "bits", "parameters"]
_SIZES: tuple[Size, ...] = ("tokens", "bits", "parameters")


@register_claim
class MatchedClaimConfig(PairsConfig):
    """Pairs of runs that are equal in tokens, bits or parameters."""

    kind: Literal["matched"] = "matched"
    equal_in: tuple[Size, ...] = Field(min_length=1)
    """What both runs of a pair have as much of: tokens, bits, parameters (of the tokenizer)."""
    tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Share by which parameters may differ; tokens and bits are equal or not."""

    def read(self, numbers: Numbers) -> Reading:
        kept: list[Pair] = []
        lost, notes = [], []
        for pair in map(tuple, self.pairs):
            sizes = {what: tuple(numbers.size(run, what) for run in pair) for what in _SIZES}
            told = ", ".join(f"{what} {_text(a)} and {_text(b)}" for what, (a, b) in sizes.items())
            apart = [what for what in self.equal_in if not self._match(what, *sizes[what])]
            if apart:
                lost.append(
                    f"{pair[0]} and {pair[1]} with equal {' and '.join(apart)} (they have {told})"
                )
            else:
                kept.append(pair)
                notes.append(f"{pair[0]} and {pair[1]} are equal in {self._equal_words}: {told}")
        found = read_pairs(self, numbers, kept)
        return Reading(
            found.tests,
            found.charts,
            found.header,
            found.lines,
            (*lost, *found.missing),
            (*notes, *found.notes),
            found.scope,
        )

    @property
    def _equal_words(self) -> str:
        return " and ".join(self.equal_in)

    def _match(self, what: Size, first: float | None, second: float | None) -> bool:
        if not first or not second:
            return False
        if what == "parameters":
            return abs(first - second) <= self.tolerance * max(first, second)
        return first == second


def _text(size: float | None) -> str:
    return "?" if size is None else f"{size:,.0f}"
