"""Reconstruction from damaged tokens: flipped bits, tokens lost at the tail or the head.

- bit_flip: each bit of the packed codes flips on its own with the share's chance; the same draws
  serve all shares, so a larger share flips the same bits and more. An index that leaves the
  codebook is taken modulo its size (`Tokens.from_bytes` would refuse it).
- drop_tail, drop_head: the last (first) positions are lost. A decoder that can be told
  (the spec's `prefix` is token or per_block) is told which are missing; for any other, a lost token
  is replaced by the code of another image of the set at the same position, a draw from that
  position's own frequencies.

Draws are keyed by image, so batches and ranks change nothing.
Letters: B batch, N images, L positions, F factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.protocols.base import Protocol, ProtocolConfig, Selects, register
from vistok.eval.protocols.common import Quality, all_codes, codes_of_others
from vistok.eval.results.rows import Row
from vistok.runtime.distributed import sum_
from vistok.runtime.modes import evaluating
from vistok.tokens import Tokens, TokenSpec

NAME = "robust"


class RobustConfig(ProtocolConfig):
    flips: Selects[tuple[float, ...]] = (0.0, 0.001, 0.005, 0.01, 0.05)
    """Chances of a bit to flip."""
    losses: Selects[tuple[float, ...]] = (0.0, 0.125, 0.25, 0.5, 0.75)
    """Shares of the positions that are lost, at the tail and at the head."""


@dataclass(frozen=True)
class Damage:
    """One way to damage tokens: bits that flip, or positions that are lost."""

    kind: Literal["bit_flip", "drop_tail", "drop_head"]
    share: float  # of the bits, or of the positions


@dataclass
class _Case:
    """One damage and what is measured under it."""

    damage: Damage
    quality: Quality
    lost: int = 0  # positions
    hit: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """Flipped bits, all bits, indices taken modulo, all indices."""


@register
class Robust(Protocol):
    """Damaged tokens: flipped bits, and positions lost at the tail or the head."""

    name = NAME
    media = ("image", "video")
    Config = RobustConfig

    def run(self, context: Context, config: RobustConfig) -> list[Row]:
        """PSNR, perceptual and Fréchet distance under each damage."""
        if not context.spec.vocab:
            context.skip(NAME, "continuous tokens have no bits, and no codes to replace them by")
            return []
        cases = [_Case(Damage("bit_flip", share), Quality(context)) for share in config.flips]
        for kind in ("drop_tail", "drop_head"):
            cases += [
                _Case(Damage(kind, lost / context.spec.length), Quality(context), lost)
                for lost in losses(context.spec, config.losses)
            ]
        others = None if tells_missing(context) else all_codes(context)
        if others is not None and len(others) < 2:
            why = f"lost tokens are replaced from other {context.unit}s; give 2 or more"
            context.skip(NAME, why)
            return []
        states = [(case.quality, case.hit) for case in cases]
        for batch in context.batches(f"{context.run.name}: damage ({len(cases)} kinds)", states):
            condition = context.condition(batch)
            tokens = context.encode(batch, condition)
            clean = to_uint8(context.decode(tokens, condition, batch.index))
            for case in cases:
                decoded = clean
                if case.damage.share > 0:
                    damaged = _decode(context, case, tokens, batch.index, others, condition)
                    decoded = to_uint8(damaged)
                case.quality.update(decoded, batch.pixels)
        return [row for case in cases for row in _rows(context, case)]


def tells_missing(context: Context) -> bool:
    """True if the decoder can be told which positions are missing, wherever they lie."""
    return context.spec.prefix in ("token", "per_block") and not context.samples


def losses(spec: TokenSpec, shares: Sequence[float]) -> list[int]:
    """Lost positions, each number once; one position at least is left."""
    counts = {round(share * spec.length) for share in shares}
    return sorted(n for n in counts if n < spec.length)


def flip_bits(
    spec: TokenSpec, indices: Tensor, index: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """indices [B, L, F] -> the same after bit flips, and [4] counts: flipped bits, bits, indices
    outside the codebook, indices."""
    bits = spec.factor_bits
    most = max(bits)
    draws = Rng(seed, "robust/flip").uniform(index, (spec.length, len(bits), most))
    inside = torch.arange(most) < torch.tensor(bits)[:, None]  # [F, most]: bits that are stored
    flipped = (draws < share) & inside
    mask = (flipped * 2 ** torch.arange(most)).sum(-1).to(indices.device)
    moved = indices.long() ^ mask
    vocab = torch.tensor(spec.vocab, device=indices.device)
    outside = moved >= vocab
    stored = len(index) * spec.length * sum(bits)
    counts = (int(flipped.sum()), stored, int(outside.sum()), moved.numel())
    return moved % vocab, torch.tensor(counts, dtype=torch.float64)


def lost_positions(spec: TokenSpec, damage: Damage, lost: int) -> Tensor:
    """[L] bool."""
    place = torch.arange(spec.length)
    return place < lost if damage.kind == "drop_head" else place >= spec.length - lost


def _decode(
    context: Context,
    case: _Case,
    tokens: Tokens,
    index: Tensor,
    others: Tensor | None,
    condition: Condition | None,
) -> Tensor:
    """[B, 3, *sides] in 0..1 decoded from the damaged tokens."""
    spec, tokenizer, damage = context.spec, context.tokenizer, case.damage
    remade = lambda indices: Tokens.of(spec, indices, size=tokens.size)
    if damage.kind == "bit_flip":
        moved, counts = flip_bits(spec, tokens.indices, index, damage.share, context.seed)
        case.hit += counts
        return context.decode(remade(moved), condition, index)
    gone = lost_positions(spec, damage, case.lost)
    if others is not None:
        drawn = codes_of_others(others, index, Rng(context.seed, f"{NAME}/{damage.kind}"))
        gone = gone.to(tokens.indices.device)[:, None]
        mixed = torch.where(gone, drawn.to(tokens.indices), tokens.indices)
        return context.decode(remade(mixed), condition, index)
    values = tokenizer.pad(tokenizer.values(tokens))
    # Values that no token stores are absent too, as in `Tokenizer.decode`.
    present = F.pad(~gone, (0, values.shape[1] - spec.length)).to(values.device)
    with evaluating(tokenizer):
        decoded = tokenizer.reconstruct(values, present.expand(len(tokens), -1), condition)
    return tokenizer.output_space.inverse(decoded.estimate).clamp(0, 1)


def _rows(context: Context, case: _Case) -> list[Row]:
    damage, spec = case.damage, context.spec
    point = {"damage": damage.kind, "share": damage.share}
    if damage.share == 0:
        note = "not damaged"
    elif damage.kind == "bit_flip":
        flipped, bits, outside, indices = sum_(case.hit).tolist()
        note = (
            f"{flipped / bits:.4%} of the code bits flipped; {outside / indices:.4%} of the "
            "indices left the codebook and were taken modulo its size"
        )
    else:
        where = "last" if damage.kind == "drop_tail" else "first"
        how = "the decoder is told that they are absent"
        if not tells_missing(context):
            how = f"replaced by the codes of other {context.unit}s at the same positions"
        elif damage.kind == "drop_head":
            how += ", at a place where no prefix leaves a gap"
        note = f"{case.lost} of {spec.length} tokens lost, the {where} ones; {how}"
    return case.quality.rows(point=point, seed=context.seed, note=note)
