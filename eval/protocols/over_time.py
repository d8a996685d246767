"""Reconstruction of clips over time: PSNR, SSIM and perceptual distance at each frame, and flicker.

Means over all frames are rFID's rows; here a frame's number is that of its place in the clip, so a
tokenizer that loses detail towards the end of a clip, or in the frames between two of its time
steps, shows it. Clips are rounded to 8 bits first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.frame_rates import Between, RatesConfig
from vistok.eval.images import network_of
from vistok.eval.protocols.base import Protocol, register
from vistok.eval.results.rows import Row
from vistok.layers.frames import frames
from vistok.metrics.over_time import Flicker, PerFrame
from vistok.metrics.quality import SSIM, SSIM_SIDE, decibels


class OverTimeConfig(RatesConfig):
    """Config of the measures over time."""


class _Curves:
    """Sums at each frame of whole sequences' reconstructions."""

    def __init__(self, context: Context, between: Between) -> None:
        count, self.size = between.sides[0], between.size
        self.context, self.count = context, count
        self.squares = PerFrame(count).to(context.device)
        similar = min(context.sides[-2:]) >= SSIM_SIDE
        self.similar = PerFrame(count).to(context.device) if similar else None
        self.distances = [PerFrame(count).to(context.device) for _ in context.perceptuals]

    @property
    def states(self) -> list[PerFrame]:
        """All that `update` changes."""
        own = [self.squares, *self.distances]
        return own if self.similar is None else [*own, self.similar]

    def update(self, decoded: Tensor, real: Tensor) -> None:
        """Both [B, 3, T, H, W] uint8."""
        decoded, real = frames(decoded), frames(real)
        a, b = decoded.double() / 255, real.double() / 255
        by_clip = lambda each: each.unflatten(0, (-1, self.count))
        self.squares.update(by_clip(((a - b) ** 2).flatten(1).mean(1)))
        if self.similar is not None:
            self.similar.update(by_clip(SSIM().each(a, b)))
        for network, mean in zip(self.context.perceptuals, self.distances, strict=True):
            mean.update(by_clip(network(a.float(), b.float())))

    def rows(self) -> list[Row]:
        context, rows = self.context, []
        psnr = decibels(torch.tensor(self.squares.compute(), dtype=torch.float64)).tolist()
        found = [("PSNR", None, psnr)]
        if self.similar is not None:
            found.append(("SSIM", None, self.similar.compute()))
        for network, mean in zip(context.perceptuals, self.distances, strict=True):
            name = "LPIPS" if network.name.startswith("lpips") else "perceptual"
            found.append((name, network_of(network), mean.compute()))
        for name, network, values in found:
            for place, value in enumerate(values):
                point = {"frame": place}
                rows.append(
                    context.row(f"{name}-cell", value, point=point, features=network, **self.size)
                )
        return rows


@register
class OverTime(Protocol):
    """Reconstruction of clips over time: quality at each frame, flicker between frames."""

    name = "over_time"
    media = ("video",)
    Config = OverTimeConfig

    def run(self, context: Context, config: OverTimeConfig) -> list[Row]:
        """Flicker at each prefix length, curves over the frames at full length."""
        between = Between(context, config)
        if between.reason:
            context.skip("flicker", between.reason)
            return []
        spec, count = context.spec, between.sides[0]
        curves = _Curves(context, between)
        flicker = {k: Flicker().to(context.device) for k in spec.eval_lengths if count > 1}
        states = [flicker, curves.states]
        for batch in context.batches(f"{context.run.name}: over time", states):
            tokens, pixels, condition = between.encode(batch)
            real = to_uint8(pixels)
            for length in spec.eval_lengths:
                whole = length == spec.max_prefix
                cut = tokens if whole else tokens.prefix(length)
                decoded = to_uint8(context.decode(cut, condition, batch.index))
                if count > 1:
                    flicker[length].update(decoded, real)
                if whole:
                    curves.update(decoded, real)
        rows = []
        for length, one in flicker.items():
            found = one.compute()
            how = {"length": length, "note": f"{count} frames a clip", **between.size}
            rows += [
                context.row("PSNR-clip", found.clip_psnr, **how),
                context.row("PSNR-change", found.change_psnr, **how),
                context.row("flicker", found.flicker, **how),
            ]
        if count == 1:
            context.skip("flicker", "clips of one frame have no changes between frames")
        return rows + curves.rows()
