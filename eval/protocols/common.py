"""What several protocols need: all codes of a set, some training images, measures of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vistok.core.rng import Rng
from vistok.eval.context import Context
from vistok.eval.images import Views, network_of, to_uint8
from vistok.eval.options import Options
from vistok.eval.protocols.rfid import MeanDistance
from vistok.eval.reference.training_set import training_set
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import Pair
from vistok.metrics import PSNR
from vistok.runtime.distributed import sum_
from vistok.tokens import keep_mask


def training_count(options: Options, most: int) -> int:
    """Training images to look at: `most`, or fewer by --train-limit."""
    return most if options.train_limit is None else min(most, options.train_limit)


def training_views(pair: Pair, options: Options, count: int) -> Callable[[Context], Views | str]:
    """Context -> views of up to `count` training images, or why there are none."""

    def make(context: Context) -> Views | str:
        found = training_set(pair.tokenizer, options.data, count)
        if isinstance(found, str):
            return found
        return Views(found.dataset, context.batch, None, context.device, context.views.workers)

    return make


def all_codes(context: Context, views: Views | None = None, title: str = "encode") -> Tensor:
    """[N, L, F] int64 on the CPU: the codes of all images, by index, on every rank."""
    views, spec = views or context.views, context.spec
    codes = torch.zeros((len(views), spec.length, len(spec.vocab)), dtype=torch.int64)
    for batch in views.batches(f"{context.run.name}: {title}"):
        tokens = context.encode(batch, context.condition(batch))
        codes[batch.index] = tokens.indices.cpu().long()
    return sum_(codes)


def codes_of_others(codes: Tensor, index: Tensor, rng: Rng) -> Tensor:
    """[B, L, F]: at each position the code of another image there, each from one of its own.

    Args:
        codes: [N, L, F] of all images, 2 or more. index: [B] which images these are.
    """
    count, length = codes.shape[:2]
    step = 1 + rng.integers(index, count - 1, (length,))  # never the image itself
    return codes[(index[:, None] + step) % count, torch.arange(length)]


def positions_of(context: Context, length: int) -> list[int]:
    """The positions that a prefix of `length` keeps."""
    keep = None if length == context.spec.max_prefix else torch.tensor([length])
    return keep_mask(context.spec, keep, 1, "cpu")[0].nonzero()[:, 0].tolist()


class Quality:
    """PSNR, perceptual and Fréchet distance of images to the real ones they stand for."""

    def __init__(self, context: Context) -> None:
        self.context, self.stats = context, context.new_stats()
        self.psnr = PSNR().to(context.device)
        self.distance = None if context.perceptual is None else MeanDistance().to(context.device)

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        return {"stats": self.stats, "psnr": self.psnr, "distance": self.distance}

    def update(self, decoded: Tensor, pixels: Tensor) -> None:
        """decoded [B, 3, H, W] uint8; pixels: the real ones in 0..1."""
        self.stats.update(self.context.features(decoded))
        self.psnr.update(decoded, to_uint8(pixels))
        if self.distance is not None:
            self.distance.update(self.context.perceptual(decoded.float() / 255, pixels))

    def rows(self, **about: Any) -> list[Row]:
        """The rows, over all ranks; `about` are fields that they share."""
        context = self.context
        rows = [
            context.row("PSNR", self.psnr.compute().pooled, **about),
            context.frechet_row("rFID", self.stats.reduce(), **about),
        ]
        if self.distance is not None:
            lpips = context.perceptual.name.startswith("lpips")
            name, network = "LPIPS" if lpips else "perceptual", network_of(context.perceptual)
            rows.insert(1, context.row(name, self.distance.compute(), features=network, **about))
        return rows
