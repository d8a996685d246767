"""Mixed-radix numbers: the digits of a position regrouped, exactly, fastest digit first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vistok.core.errors import InputError

Span = tuple[int, int]


def groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[Span, Span]]:
    """Smallest runs of factors with equal products: [((a0, a1), (b0, b1)), ...].

    ValueError unless the whole products agree, and for a run whose product passes 2**62.
    """
    if math.prod(old) != math.prod(new):
        raise InputError(
            f"cannot regroup vocab {old} (product {math.prod(old)}) as {tuple(new)} "
            f"(product {math.prod(new)}); the products must be equal"
        )
    runs, a, b = [], 0, 0
    while a < len(old) or b < len(new):
        a0, b0, left, right = a, b, 1, 1
        while left != right or left == 1:
            if left <= right and a < len(old):
                left, a = left * old[a], a + 1
            elif b < len(new):
                right, b = right * new[b], b + 1
            else:
                break
        if left > 2**62:
            raise InputError(f"vocab {old} and {tuple(new)} share no boundary below 2**62")
        runs.append(((a0, a), (b0, b)))
    return runs


def regroup(digits: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """[..., F] int64 digits in the sizes `old` -> the same numbers in the sizes `new`."""
    parts = [
        split(join(digits[..., a0:a1], old[a0:a1]), new[b0:b1])
        for (a0, a1), (b0, b1) in groups(old, new)
    ]
    return torch.cat(parts, -1)


def join(digits: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """[..., F] digits -> [...] numbers."""
    number, base = digits.new_zeros(digits.shape[:-1]), 1
    for place, size in enumerate(sizes):
        number = number + digits[..., place] * base
        base *= size
    return number


def split(number: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """[...] numbers -> [..., F] digits."""
    digits = []
    for size in sizes:
        digits.append(number % size)
        number = number // size
    return torch.stack(digits, -1)
