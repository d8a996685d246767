"""Information in each position of one-dimensional sequences (One-D-Piece, arXiv 2501.10064).

Entropy: of the codes seen at the position over the set. Change: the position's code is replaced by
that of another image at the same position (a draw from the position's own frequencies, so that
the decoder sees only codes that occur there), and the mean squared change of the decoded image is
taken; a map shows where. One-D-Piece draws any code uniformly, also ones that never occur.

Draws are keyed by image, so batches and ranks change nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vistok.core.rng import Rng
from vistok.eval.context import Context
from vistok.eval.images import bar, shares
from vistok.eval.protocols.base import Protocol, ProtocolConfig, register
from vistok.eval.protocols.common import all_codes, codes_of_others
from vistok.eval.results.rows import Row
from vistok.eval.strips import grid
from vistok.runtime.distributed import sum_, world_size
from vistok.tokens import Tokens

NAME = "order"
_LEAST = 32  # images, however long the sequence
_LINES = (8, 16)  # maps in a line of the report: what a screen holds, or twice that for more
_FEW = 64  # maps
_SIDE = 64  # pixels of a map at most
_STEP = 1 / 255


class OrderConfig(ProtocolConfig):
    decodes: int = Field(default=16384, ge=1)
    """Images decoded at most: longer sequences are measured on fewer images, 32 or more."""


@register
class Order(Protocol):
    """Each token position: entropy of its codes, and change of the image when it is drawn anew."""

    name = NAME
    Config = OrderConfig

    def run(self, context: Context, config: OrderConfig) -> list[Row]:
        """facts["order"], the maps, and how strongly the change falls along the sequence."""
        spec = context.spec
        if not spec.vocab:
            context.skip(NAME, "continuous tokens have no codes to draw")
            return []
        if any(len(block) > 1 for block in spec.blocks):
            context.skip(
                NAME, f"only for one-dimensional sequences; these are grids of {spec.blocks[0]}"
            )
            return []
        codes = all_codes(context)
        if len(codes) < 2:
            context.skip(NAME, "a code of another image needs 2 images or more")
            return []
        count = min(len(codes), max(_LEAST, config.decodes // spec.length))
        maps, differ = changes(context, codes, count)
        change = maps.mean((1, 2))
        context.facts[NAME] = {
            "entropy": entropies(codes).tolist(),
            "change": change.tolist(),
            "differ": differ.tolist(),  # share of draws that gave another code
            "images": count,
        }
        context.image_grids.append(map_grid(context.run.name, maps, count))
        note = f"{count} images, each position drawn from those of {len(codes)} images"
        rank = rank_correlation(change)
        return [
            context.row("order-correlation", rank, count=count, seed=context.seed, note=note),
        ]


def entropies(codes: Tensor) -> Tensor:
    """codes [N, L, F] -> [L] bits of each position's frequencies (log2 N at most)."""
    from scipy.stats import entropy

    counts = [one.unique(dim=0, return_counts=True)[1] for one in codes.unbind(1)]
    return torch.tensor([entropy(one.numpy(), base=2) for one in counts], dtype=torch.float64)


def changes(context: Context, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean squared change [L, H, W] over the first `count` images and the channels, and the share
    [L] of draws that gave another code; over all ranks.

    Args:
        codes: [N, L, F] of all images.
    """
    spec = context.spec
    height, width = context.sides
    maps = torch.zeros((spec.length, height, width), dtype=torch.float64, device=context.device)
    differ = torch.zeros(spec.length, dtype=torch.float64)
    reads = context.condition_name != "none"
    made = lambda indices, condition, index: context.decode(
        Tokens.of(spec, indices.to(context.device), size=(1, height, width)), condition, index
    )
    with bar(count * spec.length, f"{context.run.name}: resample each position") as progress:
        for index in shares(count, context.batch):
            own = codes[index]
            condition = context.condition(context.views.chosen(index.tolist())) if reads else None
            clean = made(own, condition, index)
            drawn = codes_of_others(codes, index, Rng(context.seed, NAME))
            for position in range(spec.length):
                moved = own.clone()
                moved[:, position] = drawn[:, position]
                maps[position] += (
                    (made(moved, condition, index) - clean).double().square().mean(1).sum(0)
                )
                differ[position] += (moved != own).any(-1).any(-1).sum()
                progress.update(len(index) * world_size())
    return sum_(maps).cpu() / count, sum_(differ) / count


def rank_correlation(change: Tensor) -> float:
    """Spearman's correlation of change and position: -1 if each position matters less than the one
    before, 0 without an order; NaN for a single position or equal changes."""
    from scipy.stats import spearmanr

    if len(change) < 2 or bool((change == change[0]).all()):
        return float("nan")
    return float(spearmanr(torch.arange(len(change)).numpy(), change.numpy()).statistic)


def map_grid(run: str, maps: Tensor, count: int) -> dict[str, Any]:
    """The maps [L, H, W] as lines of small images: all on one scale, then each on its own.

    Root mean square of the change, from black over orange to white. The one scale is logarithmic,
    from a step of 8-bit pixels (what is below cannot be seen) to the largest change of all; a map's
    own scale is linear, from nothing to its largest.
    """
    roots = maps.sqrt()
    height, width = maps.shape[1:]
    shrink = _SIDE / max(height, width)
    if shrink < 1:
        # Areas, of the squares: a map made smaller keeps its mean change.
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        roots = F.interpolate(maps[None], size=size, mode="area")[0].sqrt()
    top = float(roots.max().clamp_min(2 * _STEP))
    one = framed(heat((roots / _STEP).clamp_min(1).log() / math.log(top / _STEP)))
    own = framed(heat(roots / roots.amax((1, 2), keepdim=True).clamp_min(1e-12)))
    rows, length = [], len(maps)
    line = min(_LINES[length > _FEW], length)
    for start in range(0, length, line):
        stop = min(start + line, length)
        name = f"tokens {start + 1}-{stop}" if stop > start + 1 else f"token {stop}"
        for kind, shown in (("one scale", one), ("own scale", own)):
            part = shown[start:stop]
            blank = part.new_zeros((line - len(part), *part.shape[1:]))
            rows.append((f"{name}, {kind}", torch.cat([part, blank])))
    columns = [str(i + 1) for i in range(line)] if length == line else []
    note = (
        f"root mean square change of pixels in 0..1 over {count} images; the one scale is "
        f"logarithmic from 1/255 (black) to {top:.3f} (white), each own scale linear from 0"
    )
    return {**grid(NAME, run, rows, columns), "note": note}


def framed(maps: Tensor) -> Tensor:
    """[n, 3, H, W] -> the same with a grey line around each."""
    return F.pad(maps, (1, 1, 1, 1), value=110)


def heat(share: Tensor) -> Tensor:
    """[n, H, W] in 0..1 -> [n, 3, H, W] uint8: black, dark red, orange, pale yellow, white."""
    stops = torch.tensor(
        [[0, 0, 0], [110, 15, 45], [225, 90, 20], [252, 200, 80], [255, 255, 255]],
        dtype=share.dtype,
    )
    place = share.clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp_max(len(stops) - 2).long()
    part = (place - low)[..., None]
    color = stops[low] * (1 - part) + stops[low + 1] * part
    return (color + 0.5).to(torch.uint8).permute(0, 3, 1, 2)
