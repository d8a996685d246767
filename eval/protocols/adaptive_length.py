"""Adaptive against fixed length at equal mean bytes.

At fixed length every image keeps k tokens. Adaptively each image keeps the shortest prefix that
reaches a PSNR, as `Tokenizer.encode(target_psnr=...)` does; the PSNR asked for is the highest at
which the mean size of the files is not above that of k tokens each.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vistok.adaptive import allowed_lengths, psnr_of_each
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.protocols.base import Protocol, ProtocolConfig, register
from vistok.eval.protocols.common import Quality
from vistok.eval.results.rows import Row
from vistok.runtime.distributed import sum_
from vistok.tokens.codec import Codec

NAME = "adaptive_length"


class AdaptiveLengthConfig(ProtocolConfig):
    lengths: Literal["evaluated", "all"] = "evaluated"
    """Lengths that an image may get: those that evaluation visits (powers of two, or those that
    were trained), or every one that the tokenizer allows, with a decode for each."""


@register
class AdaptiveLength(Protocol):
    """Adaptive against fixed length: quality where both take the same mean bytes."""

    name = NAME
    media = ("image", "video")
    Config = AdaptiveLengthConfig

    def run(self, context: Context, config: AdaptiveLengthConfig) -> list[Row]:
        """Rows at each fixed length, and of the adaptive ones that take as many bytes."""
        spec = context.spec
        if not spec.vocab:
            context.skip(NAME, "continuous tokens have no bytes")
            return []
        if len(spec.eval_lengths) < 3:
            context.skip(NAME, "it takes three lengths or more: between two there is no choice")
            return []
        fixed, inner = spec.eval_lengths, spec.eval_lengths[1:-1]
        lengths = list(fixed) if config.lengths == "evaluated" else allowed_lengths(spec)
        psnr, sizes = tables(context, lengths)
        mean = {k: float(sizes[:, lengths.index(k)].double().mean()) for k in fixed}
        chosen, asked, takes = {}, {}, {}
        for k in inner:
            asked[k], places = places_for(psnr, sizes, mean[k])
            chosen[k] = torch.tensor(lengths)[places]
            takes[k] = float(sizes.gather(1, places[:, None]).double().mean())
        measured = self._measure(context, fixed, chosen)
        rows, gains = [], []
        decibels = lambda quality: quality.psnr.compute().pooled
        for k in fixed:
            point = {"point": {"codec": "fixed"}, "measured": {"bytes": mean[k]}}
            note = f"a file of each {context.unit}"
            rows += measured["fixed", k].rows(length=k, note=note, **point)
        for k in inner:
            kept = chosen[k]
            note = (
                f"shortest prefixes of {asked[k]:.2f} dB: {int(kept.min())}..{int(kept.max())}, "
                f"on average {float(kept.double().mean()):.1f}, in the bytes of {k} each"
            )
            point = {"codec": "adaptive"}
            about = {"bytes": takes[k], "target_psnr": asked[k]}
            own = measured["adaptive", k].rows(length=None, note=note, point=point, measured=about)
            rows += own
            gains.append(decibels(measured["adaptive", k]) - decibels(measured["fixed", k]))
        note = f"mean over the bytes of {', '.join(map(str, inner))} tokens"
        gain = sum(gains) / len(gains)
        return [*rows, context.row("adaptive-gain", gain, length=None, note=note)]

    @staticmethod
    def _measure(
        context: Context, fixed: tuple[int, ...], chosen: dict[int, Tensor]
    ) -> dict[tuple[str, int], Quality]:
        """Quality of each fixed length and of each set of chosen lengths [N]."""
        of = {("fixed", k): Quality(context) for k in fixed}
        of |= {("adaptive", k): Quality(context) for k in chosen}
        title, states = f"{context.run.name}: adaptive", list(of.values())
        for batch in context.batches(title, states):
            condition = context.condition(batch)
            tokens = context.encode(batch, condition)
            for (kind, k), quality in of.items():
                kept = k if kind == "fixed" else chosen[k][batch.index.cpu()].to(batch.index.device)
                decoded = context.decode(tokens.prefix(kept), condition, batch.index)
                quality.update(to_uint8(decoded), batch.pixels)
        return of


def tables(context: Context, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """[N, n] of all images at each length: PSNR float64 and bytes of a .vtk file int64; the same on
    every rank."""
    count, codec = len(context.views), Codec(context.spec, "0" * 8)
    psnr = torch.zeros((count, len(lengths)), dtype=torch.float64)
    sizes = torch.zeros((count, len(lengths)), dtype=torch.int64)
    for batch in context.views.batches(f"{context.run.name}: PSNR at each length"):
        condition = context.condition(batch)
        tokens, index = context.encode(batch, condition), batch.index.cpu()
        real = to_uint8(batch.pixels)
        for place, length in enumerate(lengths):
            cut = tokens.prefix(length)
            decoded = to_uint8(context.decode(cut, condition, batch.index))
            psnr[index, place] = psnr_of_each(decoded, real.to(decoded.device))
            sizes[index, place] = torch.tensor([len(data) for data in codec.write(cut)])
    return sum_(psnr), sum_(sizes)


def places_for(psnr: Tensor, sizes: Tensor, bytes: float) -> tuple[float, Tensor]:
    """(the PSNR asked for, places [N]) of the shortest prefixes that reach it, in at most `bytes`
    on average; an image that never reaches it is kept whole.

    Args:
        psnr, sizes: [N, n] of all images at each length, ascending.
    """
    last = psnr.shape[1] - 1

    def places(asked: Tensor) -> Tensor:
        meets = psnr >= asked
        return torch.where(meets.any(1), meets.int().argmax(1), last)

    mean = lambda where: float(sizes.gather(1, where[:, None]).double().mean())
    asked = psnr.flatten().unique()  # ascending; in between nothing changes
    low, high = 0, len(asked)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if mean(places(asked[middle])) <= bytes else (low, middle)
    return float(asked[low]), places(asked[low])
