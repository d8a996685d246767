"""Looking at a tokenizer's reconstructions: validation metrics and grids of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchvision.utils import make_grid

from vistok.core.records import Batch, Condition
from vistok.layers.frames import frames
from vistok.metrics.codebook import CodebookStats
from vistok.metrics.quality import PSNR
from vistok.tokenizer import Tokenizer

ConditionOf = Callable[[Batch], Condition | None]

_IMAGES, _CLIPS, _FRAMES = 8, 2, 4  # columns of a grid: images, or clips times frames


@torch.no_grad()
def validate(
    tokenizer: Tokenizer,
    batches: Iterable[Batch],
    lengths: tuple[int, ...],
    condition_of: ConditionOf,
) -> dict[str, float]:
    """PSNR (pooled squared error) at each prefix length, codebook usage and entropy."""
    tokenizer = tokenizer.eval()
    spec = tokenizer.spec()
    device = next(tokenizer.parameters()).device  # where processes can add them up
    psnr = {length: PSNR().to(device) for length in lengths}
    codes = CodebookStats(spec).to(device) if spec.vocab else None
    for batch in batches:
        condition = condition_of(batch)
        tokens = tokenizer.encode(batch.pixels, condition=condition)
        if codes is not None:
            codes.update(tokens.indices)
        for length, metric in psnr.items():
            cut = tokens if length == spec.max_prefix else tokens.prefix(length)
            metric.update(tokenizer.decode(cut, condition), batch.pixels)
    results = {
        "psnr" if length == spec.max_prefix else f"psnr@{length}": metric.compute().pooled
        for length, metric in psnr.items()
    }
    if codes is not None:
        use = codes.compute()
        shares, bits = use.factor_usage, use.factor_entropy
        results["codebook_usage"] = sum(shares) / len(shares) if use.usage is None else use.usage
        results["codebook_entropy"] = sum(bits) if use.entropy is None else use.entropy
        results["slot_redundancy"] = use.redundancy
    return results


@torch.no_grad()
def image_grid(
    tokenizer: Tokenizer, batch: Batch, lengths: tuple[int, ...], condition_of: ConditionOf
) -> Tensor:
    """[3, H, W]: a row of originals, then reconstructions from the longest prefix to the shortest.

    Of clips, a few and of each a few frames, from its first to its last.
    """
    tokenizer = tokenizer.eval()
    spec = tokenizer.spec()
    count = _IMAGES if batch.pixels.ndim == 4 else _CLIPS
    pixels, condition = batch.pixels[:count], condition_of(batch)
    if condition is not None:
        condition = condition.rows(0, len(pixels))
    tokens = tokenizer.encode(pixels, condition=condition)
    rows = [_shown(pixels)]
    for length in reversed(lengths):
        cut = tokens if length == spec.max_prefix else tokens.prefix(length)
        rows.append(_shown(tokenizer.decode(cut, condition)))
    return make_grid(torch.cat(rows).float().cpu(), nrow=len(rows[0]))


def _shown(pixels: Tensor) -> Tensor:
    """Images as they are; a few frames of each clip, evenly spread."""
    if pixels.ndim == 5:
        count = pixels.shape[2]
        places = torch.linspace(0, count - 1, min(_FRAMES, count)).round().long()
        pixels = pixels[:, :, places.to(pixels.device)]
    return frames(pixels)
