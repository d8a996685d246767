"""What several protocols need: all codes of a set, some training images, measures of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vistok.core.rng import Rng
from vistok.eval.bench import Bench
from vistok.eval.images import Views, network_of, to_uint8
from vistok.eval.options import Options
from vistok.eval.protocols.rfid import MeanDistance
from vistok.eval.rows import Row
from vistok.eval.runs import Pair
from vistok.eval.training_set import training_set
from vistok.metrics import PSNR
from vistok.runtime.distributed import sum_
from vistok.tokens import keep_mask


def training_count(options: Options, most: int) -> int:
    """Training images to look at: `most`, or fewer by --train-limit."""
    return most if options.train_limit is None else min(most, options.train_limit)


def training_views(pair: Pair, options: Options, count: int) -> Callable[[Bench], Views | str]:
    """Bench -> views of up to `count` training images, or why there are none."""

    def make(bench: Bench) -> Views | str:
        found = training_set(pair.tokenizer, options.data, count)
        if isinstance(found, str):
            return found
        return Views(found.dataset, bench.batch, None, bench.device, bench.views.workers)

    return make


def all_codes(bench: Bench, views: Views | None = None, title: str = "encode") -> Tensor:
    """[N, L, F] int64 on the CPU: the codes of all images, by index, on every rank."""
    views, spec = views or bench.views, bench.spec
    codes = torch.zeros((len(views), spec.length, len(spec.vocab)), dtype=torch.int64)
    for batch in views.batches(f"{bench.run.name}: {title}"):
        tokens = bench.encode(batch, bench.condition(batch))
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


def positions_of(bench: Bench, length: int) -> list[int]:
    """The positions that a prefix of `length` keeps."""
    keep = None if length == bench.spec.max_prefix else torch.tensor([length])
    return keep_mask(bench.spec, keep, 1, "cpu")[0].nonzero()[:, 0].tolist()


class Quality:
    """PSNR, perceptual and Fréchet distance of images to the real ones they stand for."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.stats = bench, bench.new_stats()
        self.psnr = PSNR().to(bench.device)
        self.distance = None if bench.perceptual is None else MeanDistance().to(bench.device)

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        return {"stats": self.stats, "psnr": self.psnr, "distance": self.distance}

    def update(self, decoded: Tensor, pixels: Tensor) -> None:
        """decoded [B, 3, H, W] uint8; pixels: the real ones in 0..1."""
        self.stats.update(self.bench.features(decoded))
        self.psnr.update(decoded, to_uint8(pixels))
        if self.distance is not None:
            self.distance.update(self.bench.perceptual(decoded.float() / 255, pixels))

    def rows(self, **about: Any) -> list[Row]:
        """The rows, over all ranks; `about` are fields that they share."""
        bench = self.bench
        rows = [
            bench.row("PSNR", self.psnr.compute().pooled, **about),
            bench.frechet_row("rFID", self.stats.reduce(), **about),
        ]
        if self.distance is not None:
            lpips = bench.perceptual.name.startswith("lpips")
            name, network = "LPIPS" if lpips else "perceptual", network_of(bench.perceptual)
            rows.insert(1, bench.row(name, self.distance.compute(), features=network, **about))
        return rows
