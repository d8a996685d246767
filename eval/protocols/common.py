"""Shared by several protocols: all codes of a set, training images, measures of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vistok import metrics as library
from vistok.core.rng import Rng
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, network_of
from vistok.eval.intervals import of_mean
from vistok.eval.protocols.base import Job, Protocol
from vistok.eval.reference.training_set import training_set
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.frozen import PerceptualNetwork
from vistok.layers.frames import frames
from vistok.runtime.distributed import sum_
from vistok.tokens import TokenSpec, keep_mask

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig


def training_job(protocol: Protocol, system: System, config: EvalConfig, own: Any) -> Job:
    """A job with views of the training images that its config wants, or with why there are none."""

    found = training_set(system.tokenizer, config.data, own.train_images)
    identity = found if isinstance(found, str) else found.identity

    def make(context: Context) -> Views | str:
        if isinstance(found, str):
            return found
        return Views(found.dataset, context.batch, None, context.device, context.views.workers)

    return Job(protocol, own, data=make, identity=identity)


def all_codes(
    context: Context,
    views: Views | None = None,
    title: str = "encode",
    only: Sequence[int] | None = None,
) -> Tensor:
    """[N, L, F] int64 on the CPU: the codes of all images, by index, on every rank. `only`: numbers
    of the images that are encoded; zeros stand for the others."""
    views, spec = views or context.views, context.spec
    codes = torch.zeros((len(views), spec.length, len(spec.vocab)), dtype=torch.int64)
    for batch in views.batches(f"{context.run.name}: {title}", only=only):
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


def positions_of(spec: TokenSpec, length: int) -> list[int]:
    """The positions that a prefix of `length` keeps."""
    keep = None if length == spec.max_prefix else torch.tensor([length])
    return keep_mask(spec, keep, 1, "cpu")[0].nonzero()[:, 0].tolist()


def distance_row(context: Context, network: PerceptualNetwork, value: float, **rest: Any) -> Row:
    """The row of a mean perceptual distance, under the name of its kind."""
    name = "LPIPS" if network.name.startswith("lpips") else "perceptual"
    return context.row(name, value, features=network_of(network), **rest)


class Quality:
    """PSNR, perceptual and Fréchet distance of images to the real ones they stand for."""

    def __init__(self, context: Context) -> None:
        self.context, self.stats = context, context.new_stats()
        together = context.sides[0] if len(context.sides) == 3 else 1  # a clip is one sample
        self.psnr = library.PSNR(together).to(context.device)
        self.distance = (
            None
            if context.perceptual is None
            else library.MeanDistance(together).to(context.device)
        )

    @property
    def states(self) -> dict[str, Any]:
        """All that `update` changes."""
        return {"stats": self.stats, "psnr": self.psnr, "distance": self.distance}

    def update(self, decoded: Tensor, pixels: Tensor) -> None:
        """decoded [B, 3, *sides] uint8; pixels: the real ones in 0..1. Clips count by frames."""
        decoded, pixels = frames(decoded), frames(pixels)
        self.stats.update(self.context.features(decoded))
        self.psnr.update(decoded, to_uint8(pixels))
        if self.distance is not None:
            self.distance.update(self.context.perceptual(decoded.float() / 255, pixels))

    def rows(self, **about: Any) -> list[Row]:
        """The rows, over all ranks; `about` are fields that they share."""
        context, psnr = self.context, self.psnr.compute()
        spread = of_mean(context, psnr.pooled, psnr.pooled_error)
        rows = [
            context.row("PSNR", psnr.pooled, **spread, **about),
            context.frechet_row(context.per_frame("rFID"), self.stats.reduce(), **about),
        ]
        if self.distance is not None:
            value = self.distance.compute()
            spread = of_mean(context, value, self.distance.mean_error)
            rows.insert(1, distance_row(context, context.perceptual, value, **spread, **about))
        return rows
