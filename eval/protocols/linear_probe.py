"""Linear probe: how much the features inside a frozen tokenizer say of the class.

At each tap the features of training images fit a logistic regression (vistok.metrics.logistic),
which is scored on the validation images. Taps:
- latents, codes: what enters and what leaves the quantizer, all positions side by side (`flat`) or
  their mean; `codes/histogram`: how often each code occurs, where there are few enough codes.
- encoder.NAME: the features that the encoder offers, mean over their positions.
- pixels (no network) and chance (always the commonest training class): the baselines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vistok.core.records import Batch
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, register
from vistok.eval.protocols.common import training_job
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.metrics.logistic import PENALTIES, STEPS, fit
from vistok.runtime.distributed import sum_

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

NAME = "linear_probe"
_WIDEST = 8192  # features of a tap
_PIXELS = 32  # side of the pixel baseline's images


class LinearProbeConfig(ProtocolConfig):
    train_images: int = Field(default=8192, ge=2)
    """Training images that the classifiers are fitted to."""
    penalties: tuple[float, ...] = PENALTIES
    """Weights of the squared norm that are tried."""
    steps: int = Field(default=STEPS, ge=1)
    """Steps of L-BFGS at most."""


@register
class LinearProbe(Protocol):
    """Linear probe: top-1 of a logistic regression on frozen features of the tokenizer."""

    name = NAME
    Config = LinearProbeConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        return [training_job(self, system, config, config.linear_probe)]

    def run(self, context: Context, config: LinearProbeConfig) -> list[Row]:
        """Top-1 of each tap on the validation images."""
        if not context.views.dataset.classes:
            context.skip(NAME, "the data have no classes")
            return []
        views = context.job.data(context)
        if isinstance(views, str):
            context.skip(NAME, views)
            return []
        classes = tuple(views.dataset.classes)
        if classes != tuple(context.views.dataset.classes):
            context.skip(NAME, "the classes of the training and the validation split differ")
            return []
        known, labels = collect(context, views, "probe, training images")
        seen, truth = collect(context, context.views, "probe, validation images")
        if min(int(labels.min()), int(truth.min())) < 0:
            context.skip(NAME, "some images have no label")
            return []
        common = labels.bincount(minlength=len(classes)).argmax()
        chance = float((truth == common).double().mean())
        rows = [
            context.row(
                "probe-top1",
                chance,
                point={"tap": "chance"},
                note=f"always '{classes[int(common)]}', commonest of {len(labels)} training images",
            )
        ]
        for tap, features in known.items():
            width = features.shape[1]
            if width > _WIDEST:
                context.skip(f"{NAME}, {tap}", f"{width} features; at most {_WIDEST} are fitted")
                continue
            probe = fit(features, labels, len(classes), config.penalties, config.steps)
            note = (
                f"logistic regression of {width} features on {len(labels)} training images, at "
                f"most {config.steps} L-BFGS steps, penalty {probe.penalty:g}; on these "
                f"{probe.top1(features, labels):.3f}"
            )
            top1 = probe.top1(seen[tap], truth)
            rows.append(context.row("probe-top1", top1, point={"tap": tap}, note=note))
        return rows


def collect(context: Context, views: Views, title: str) -> tuple[dict[str, Tensor], Tensor]:
    """{tap: [N, d] float32} and labels [N] of all images, in order, on every rank."""
    found: dict[str, Tensor] = {}
    labels = torch.zeros(len(views), dtype=torch.int64, device=context.device)
    with every_tap(context.tokenizer):
        for batch in views.batches(f"{context.run.name}: {title}"):
            labels[batch.index] = batch.label
            for tap, features in taps(context, batch).items():
                if tap not in found:
                    found[tap] = features.new_zeros((len(views), features.shape[1]))
                found[tap][batch.index] = features
        # Every rank must sum the same taps, also one without images.
        for tap, features in taps(context, views.chosen([0])).items():
            if tap not in found:
                found[tap] = features.new_zeros((len(views), features.shape[1]))
    return {tap: sum_(found[tap]) for tap in sorted(found)}, sum_(labels)


@contextmanager
def every_tap(tokenizer: Any) -> Iterator[None]:
    """Inside, encoders also give the taps that they leave out to save time."""
    encoder = getattr(tokenizer, "encoder", None)
    if not hasattr(encoder, "wants_patches"):
        yield
        return
    encoder.wants_patches = True
    try:
        yield
    finally:
        encoder.wants_patches = False


def taps(context: Context, batch: Batch) -> dict[str, Tensor]:
    """Pixels of a batch -> {tap: [B, d]}; taps that are the same as another are left out."""
    tokenizer, spec, pixels = context.tokenizer, context.spec, batch.pixels
    latents = context.latents(batch, context.condition(batch))
    quantized = tokenizer.quantize(latents)
    small = F.adaptive_avg_pool2d(pixels, _PIXELS) if max(pixels.shape[-2:]) > _PIXELS else pixels
    found = {"pixels": small.flatten(1)}
    for name, values in (("latents", latents.values), ("codes", quantized.clean)):
        found[f"{name}/flat"] = values.flatten(1)
        found[f"{name}/mean"] = values.mean(1)
    if quantized.indices is not None and spec.codebook_size <= _WIDEST:
        found["codes/histogram"] = histogram(quantized.indices[:, : spec.length], spec.vocab)
    for name, values in latents.features.items():
        found[f"encoder.{name}/mean"] = values.mean(1)
    return {tap: values.float() for tap, values in found.items()}


def histogram(indices: Tensor, vocab: tuple[int, ...]) -> Tensor:
    """indices [B, L, F] -> [B, K]: share of the positions that hold each code."""
    size, code = 1, 0
    for factor, one in enumerate(vocab):
        code, size = code + indices[..., factor].long() * size, size * one
    share = torch.zeros((len(indices), size), device=indices.device)
    return share.scatter_add_(1, code, torch.full_like(code, 1, dtype=share.dtype)) / code.shape[1]
