"""Edits of tokens: some replaced by other codes, some taken from another image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.demo.encoded import Encoded, codes_of
from vistok.editing import copy_tokens
from vistok.metrics.perturbed import Cell, batch_ranks
from vistok.tokens import Tokens, TokenSpec

By = Literal["neighbours", "random"]


def perturb(
    encoded: Encoded, length: int, share: float, by: By, reach: int = 16, seed: int = 0
) -> tuple[Tokens, Tensor]:
    """(tokens of a prefix with a share of its codes replaced, [L] bool of what changed).

    Args:
        share: 0..1, of the positions of the prefix.
        by: "neighbours", one of the `reach` codes nearest to what was quantized (the code itself
            included, as pFID draws); or "random", any code.
    Raises InputError for continuous tokens, and for a quantizer that keeps no queries.
    """
    codes = codes_of(encoded, "replace")
    spec = encoded.model.spec
    if by == "neighbours":
        changed = _neighbours(encoded, share, reach, seed)
    else:
        changed = _random(codes, spec, share, seed)
    kept = torch.arange(spec.length) >= 0
    tokens = Tokens.of(spec, changed, size=encoded.tokens.size)
    if spec.prefix != "none":
        tokens = tokens.prefix(length)
        kept = tokens.kept()[0]
    return tokens, (changed != codes).any(-1)[0] & kept


def _neighbours(encoded: Encoded, share: float, reach: int, seed: int) -> Tensor:
    if encoded.queries is None:
        raise InputError(
            f"{encoded.model.name}: its quantizer keeps no vectors to find neighbours of; choose "
            "random codes"
        )
    spec, quantizer = encoded.model.spec, encoded.model.tokenizer.quantizer
    queries = encoded.queries[:, : spec.length]
    ranks = batch_ranks(
        torch.tensor([0]), queries.shape[1], Cell(share, reach), queries.shape[2], seed
    )
    device = next(encoded.model.tokenizer.parameters()).device
    with torch.no_grad():
        return quantizer.perturb(queries.to(device), ranks.to(device)).cpu().long()


def _random(codes: Tensor, spec: TokenSpec, share: float, seed: int) -> Tensor:
    rng, index = Rng(seed, "demo/perturb"), torch.tensor([0])
    chosen = rng.uniform(index, (spec.length,)) < share  # [1, L]
    size = torch.tensor(spec.vocab)
    drawn = rng.child("codes").uniform(index, (spec.length, len(spec.vocab)))
    other = torch.minimum((drawn.double() * size).long(), size - 1)
    return torch.where(chosen[..., None], other, codes)


def places(spec: TokenSpec, first: int | None, blocks: Sequence[int]) -> list[int]:
    """Positions that are taken from the second image: the first `first`, or those of some blocks.

    InputError for a block that is not there.
    """
    if first is not None:
        return list(range(max(0, min(first, spec.length))))
    starts, found = [0], []
    for size in spec.block_lengths:
        starts.append(starts[-1] + size)
    for block in blocks:
        if not 0 <= block < len(spec.blocks):
            raise InputError(f"block {block}; expected 0..{len(spec.blocks) - 1}")
        found += range(starts[block], starts[block + 1])
    return found


def mix(one: Encoded, other: Encoded, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """([3, H, W] with `other`'s codes at some positions, the same the other way round)."""
    if one.model is not other.model:
        raise InputError("tokens of two models cannot be mixed; encode both images with one")
    codes_of(one, "mix")
    mixed = [
        copy_tokens(one.tokens, other.tokens, positions),
        copy_tokens(other.tokens, one.tokens, positions),
    ]
    both = replace(mixed[0], indices=torch.cat([tokens.indices for tokens in mixed]))
    first, second = one.model.tokenizer.decode(both).float().cpu()
    return first, second
