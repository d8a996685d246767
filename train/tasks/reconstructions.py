"""Looking at a tokenizer's reconstructions: validation metrics and grids of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vistok.config import Config
from vistok.core.records import Batch, Condition
from vistok.layers.frames import frames
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens, TokenSpec
from vistok.train.tasks.cached_space import with_pixels

_IMAGES, _CLIPS, _FRAMES = 8, 2, 4  # columns of a grid: images, or clips times frames


@dataclass(frozen=True)
class Decoding:
    """Settings with which reconstructions are made."""

    lengths: tuple[int, ...]
    """Prefix lengths, ascending; the last is the whole sequence."""
    condition_of: Callable[[Batch], Condition | None]
    """A batch -> the condition that encoder and decoder read besides its pixels."""
    sampling: Config | None = None
    """Settings of a decoder that samples; its noise is keyed by sample number."""

    def reconstructions(self, tokenizer: Tokenizer, batch: Batch) -> tuple[Tokens, list[Tensor]]:
        """The tokens of a batch, and its pixels in 0..1 at each length."""
        condition = self.condition_of(batch)
        tokens = tokenizer.encode(batch.pixels, condition=condition)
        whole = tokenizer.spec().max_prefix
        cuts = (tokens if n == whole else tokens.prefix(n) for n in self.lengths)
        how = {"index": batch.index, "sampling": self.sampling}
        return tokens, [tokenizer.decode(cut, condition, **how) for cut in cuts]


@torch.no_grad()
def validate(
    tokenizer: Tokenizer, batches: Iterable[Batch], decoding: Decoding
) -> dict[str, float]:
    """PSNR (pooled squared error) at each prefix length, codebook usage and entropy."""
    # torchmetrics takes longer to import than the rest of a training; few steps need it.
    from vistok.metrics import PSNR, CodebookStats

    spec = tokenizer.spec()
    device = next(tokenizer.parameters()).device  # where processes can add them up
    psnr = {length: PSNR().to(device) for length in decoding.lengths}
    codes = CodebookStats(spec).to(device) if spec.vocab else None
    for batch in batches:
        batch = with_pixels(tokenizer, batch)
        tokens, made = decoding.reconstructions(tokenizer, batch)
        if codes is not None:
            codes.update(tokens.indices)
        for metric, pixels in zip(psnr.values(), made, strict=True):
            metric.update(frames(pixels), frames(_wanted(batch)))
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
def image_grid(tokenizer: Tokenizer, batch: Batch, decoding: Decoding) -> Tensor:
    """[3, H, W]: a row of what must be rebuilt, then reconstructions, the longest prefix first.

    Of clips, a few and of each a few frames, from its first to its last.
    """
    from torchvision.utils import make_grid  # slow to import

    batch = with_pixels(tokenizer, batch)
    shown = batch.select(slice(_IMAGES if batch.pixels.ndim == 4 else _CLIPS))
    _, made = decoding.reconstructions(tokenizer, shown)
    rows = [_shown(pixels) for pixels in (_wanted(shown), *reversed(made))]
    return make_grid(torch.cat(rows).float().cpu(), nrow=len(rows[0]))


def row_names(spec: TokenSpec, decoding: Decoding) -> tuple[str, ...]:
    """Names of the rows of `image_grid`."""
    unit = "block" if spec.prefix == "block" else "token"
    inside = " per block" if spec.prefix == "per_block" else ""
    names = [f"{n} {unit}{'' if n == 1 else 's'}{inside}" for n in reversed(decoding.lengths)]
    return ("original", *names)


def _wanted(batch: Batch) -> Tensor:
    """What reconstructions are compared with, as in training."""
    return batch.pixels if batch.target is None else batch.target


def _shown(pixels: Tensor) -> Tensor:
    """Images as they are; a few frames of each clip, evenly spread."""
    if pixels.ndim == 5:
        count = pixels.shape[2]
        places = torch.linspace(0, count - 1, min(_FRAMES, count)).round().long()
        pixels = pixels[:, :, places.to(pixels.device)]
    return frames(pixels)
