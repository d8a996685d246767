"""The lengths of several tokenizers on one slider: steps of bits, the fewest first."""

from __future__ import annotations

from collections.abc import Sequence

from vistok.tokens import TokenSpec

_FLOAT_BITS = 32  # of each number of continuous tokens, which have no bits of their own


def lengths_of(spec: TokenSpec) -> tuple[int, ...]:
    """All prefix lengths that may be decoded, ascending."""
    if spec.prefix == "none" or spec.lengths is not None:
        return spec.eval_lengths
    return tuple(range(1, spec.max_prefix + 1))


def bits_at(spec: TokenSpec, length: int) -> int:
    """Bits of a prefix; of continuous tokens those of their fp32 numbers."""
    each = sum(spec.factor_bits) if spec.vocab else spec.dim * _FLOAT_BITS
    return spec.positions_in(length) * each


def steps_of(specs: Sequence[TokenSpec]) -> tuple[int, ...]:
    """Bits at which one of the tokenizers gets another length, ascending."""
    return tuple(sorted({bits_at(spec, length) for spec in specs for length in lengths_of(spec)}))


def length_at(spec: TokenSpec, bits: int) -> int:
    """The longest prefix of at most `bits`; the shortest one if all are longer."""
    lengths = lengths_of(spec)
    fitting = [length for length in lengths if bits_at(spec, length) <= bits]
    return fitting[-1] if fitting else lengths[0]


def nearest_step(steps: Sequence[int], bits: int | None) -> int:
    """Place of the step that is nearest to `bits`; the last one for None."""
    if bits is None:
        return len(steps) - 1
    return min(range(len(steps)), key=lambda place: abs(steps[place] - bits))
