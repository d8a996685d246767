"""iFID: Fréchet distance after each image was mixed with its nearest training image.

Where a generator has learned something, its samples lie between training images. So each
evaluated image is encoded, mixed with its nearest neighbor among the training images in the
tokenizer's own space, decoded, and the set is compared with the real images.
- `iFID-discrete-v1`, our own: a share of the tokens comes from the neighbor's sequence.
- `iFID-v1`, for continuous latents: halfway along the arc to a near neighbor (Xu et al. 2026,
  arXiv 2603.05630), see eval/protocols/latent_mixing.py.
docs/ideas/ifid.md has the exact text. Of clips every frame counts as an image.

Letters: n images, L positions, P branches, F factors, N = L x P tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.protocols import latent_mixing
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, register
from vistok.eval.protocols.common import all_codes, positions_of, training_job
from vistok.eval.protocols.neighbors import code_vectors, kept, same_places, search
from vistok.eval.protocols.pfid import changed, tokens_of
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats
from vistok.metrics.interpolated import (
    CANDIDATES,
    CONTINUOUS,
    DISCRETE,
    QUICK_SEARCHED,
    QUICK_SHARES,
    SEARCHED,
    SHARES,
    batch_taken,
)
from vistok.metrics.perturbed import quick_subset
from vistok.runtime.distributed import sum_
from vistok.tokens import TokenSpec

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

NAME = "ifid"


class IFIDConfig(ProtocolConfig):
    mode: Selects[Literal["full", "quick", "both"]] = "full"
    """full: three shares of all images at full length; quick: one share of at most 5,000 images,
    at each length, with neighbors among at most 10,000; both."""
    neighbors: Literal["train", "val"] = "train"
    """Images among which the nearest is sought: train, or val, the other evaluated ones (another
    number, for data without a training split)."""
    train_images: int = Field(default=SEARCHED, ge=2)
    """Training images among which the nearest is sought; of more, a keyed choice."""


@register
class IFID(Protocol):
    """Interpolated FID: rFID after each image was mixed with its nearest training image."""

    name = NAME
    media = ("image", "video")
    Config = IFIDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        """One job for the full number, one for the quick one."""
        asked, found = config.ifid, []
        for mode in ("full", "quick") if asked.mode == "both" else (asked.mode,):
            own = asked.model_copy(update={"mode": mode})
            if mode == "quick":
                fewer = min(asked.train_images, QUICK_SEARCHED)
                own = own.model_copy(update={"train_images": fewer})
            if own.neighbors == "train":
                found.append(training_job(self, system, config, own))
            else:
                found.append(Job(self, own, data=lambda context: context.views))
        return found

    def run(self, context: Context, config: IFIDConfig) -> list[Row]:
        """iFID-discrete-v1 and its cells, or its quick variant at each length; iFID-v1 of
        continuous latents."""
        quick = config.mode == "quick"
        kind = DISCRETE if context.spec.vocab else CONTINUOUS
        name = context.per_frame(kind + ("-quick" if quick else ""))
        base = context.job.data(context)
        if isinstance(base, str):
            instead = f"{base}; {NAME}.neighbors=val seeks them among the evaluated {context.unit}s"
            context.skip(name, instead)
            return []
        chosen, note = chosen_images(context, quick)
        own = same_places(context.views, base)
        needed = (1 if context.spec.vocab else CANDIDATES) + (own is not None)
        if len(base) < needed:
            few = f"{len(base)} {context.unit}s to choose a neighbor from; give {needed} or more"
            context.skip(name, few)
            return []
        about = searched(context, base, own)
        if not context.spec.vocab:
            only = some(chosen, context)
            return latent_mixing.rows(context, base, name, chosen, only, own, about, note)
        only = None if base is context.views else some(chosen, context)
        clean = all_codes(context, only=only)
        others = clean if base is context.views else all_codes(context, base, "encode neighbors")
        rows = []
        for length in context.spec.eval_lengths if quick else (context.spec.max_prefix,):
            find = lambda length=length: search(
                context,
                code_vectors(context, clean[chosen], length),
                code_vectors(context, others, length),
                exclude=None if own is None else own[chosen],
            )
            near = kept(context, base, {"length": length, "quick": quick, "count": 1}, find)
            mixing = Mixing(context, length, QUICK_SHARES if quick else SHARES)
            picked = torch.zeros_like(clean)
            picked[chosen] = others[near.index[:, 0]]
            mixing.measure(clean, picked, chosen)
            apart = float(near.squares.mean()) / context.spec.positions_in(length)
            noted = (f"{about}, {apart:.4g} apart per position", note)
            rows += mixing.rows(name, "; ".join(filter(None, noted)))
        return rows


def chosen_images(context: Context, quick: bool) -> tuple[Tensor, str]:
    """[n] places of the images that are mixed, and how the rows' note says it."""
    if not quick:
        return torch.arange(len(context.views)), ""
    places, note = quick_subset(len(context.views), f"{context.unit}s")
    rule = note or f"every 10th {context.unit} up to 5,000"
    said = f"{context.unit}s: {rule}; the reference is every {context.unit}"
    return torch.from_numpy(places), said


def some(chosen: Tensor, context: Context) -> list[int] | None:
    """The places as a loop over the images takes them: None for all."""
    return None if len(chosen) == len(context.views) else chosen.tolist()


def searched(context: Context, base: Views, own: Tensor | None) -> str:
    """What the neighbors were chosen from, as the rows' note says it."""
    which = "evaluated" if base is context.views else "training"
    themselves = ", never itself" if own is not None else ""
    return f"nearest of {len(base):,} {which} {context.unit}s{themselves}"


def mixed(
    spec: TokenSpec,
    clean: Tensor,
    other: Tensor,
    index: Tensor,
    length: int,
    share: float,
    seed: int,
) -> Tensor:
    """Clean indices [B, L, F] -> the same with a share of the kept tokens from `other` [B, L, F].

    Args:
        index: [B] places of the images: the key of the draws.
    """
    kept_ones = torch.tensor(positions_of(spec, length))
    from_other = batch_taken(index, len(kept_ones), share, spec.branches, seed)
    factors = clean.shape[-1] // spec.branches
    from_other = from_other.repeat_interleave(factors, -1)  # [B, kept, F]
    result = clean.clone()
    result[:, kept_ones] = torch.where(from_other, other[:, kept_ones], clean[:, kept_ones])
    return result


@dataclass
class _Done:
    stats: FeatureStats
    changed: Tensor  # [] tokens whose code differs
    tokens: Tensor  # [] all of them


class Mixing:
    """Mixed images at one length, for several shares."""

    def __init__(self, context: Context, length: int, shares: Sequence[float]) -> None:
        self.context, self.length = context, length
        zero = lambda: torch.zeros((), dtype=torch.float64)
        self.done = {share: _Done(context.new_stats(), zero(), zero()) for share in shares}

    def measure(self, clean: Tensor, other: Tensor, chosen: Tensor) -> None:
        """Decode the mixtures of clean and other codes [N, L, F], of the images `chosen`."""
        context, spec, seed = self.context, self.context.spec, self.context.seed
        title = f"{context.run.name}: mix ({len(self.done)} shares)"
        for batch in context.batches(title, self.done, some(chosen, context)):
            index, condition = batch.index, context.condition(batch)
            for share, one in self.done.items():
                moved = mixed(spec, clean[index], other[index], index, self.length, share, seed)
                tokens = tokens_of(context, moved, self.length)
                decoded = frames(to_uint8(context.decode(tokens, condition, index)))
                one.stats.update(context.features(decoded))
                one.changed += changed(spec, clean[index], moved)
                one.tokens += len(index) * spec.positions_in(self.length) * spec.branches
        for one in self.done.values():
            one.stats = one.stats.reduce()

    def rows(self, name: str, note: str) -> list[Row]:
        """The mean over shares, and the cells."""
        context, spec = self.context, self.context.spec
        note = f"{note}; N={spec.positions_in(self.length) * spec.branches}"
        at = {"length": self.length, "seed": context.seed}
        cells = [
            context.frechet_row(
                f"{name}-cell",
                one.stats,
                point={"share": share},
                measured={"changed": float(sum_(one.changed) / sum_(one.tokens))},
                note=note,
                **at,
            )
            for share, one in self.done.items()
        ]
        first = cells[0]
        same = {"features": first.features, "count": first.count, "bias": first.bias}
        shares = ", ".join(f"{share:g}" for share in self.done)
        noted = f"mean over shares {shares} of the tokens; {note}"
        mean = sum(row.number for row in cells) / len(cells)  # also of one that is infinite
        return [context.row(name, mean, note=noted, few=first.few, **same, **at), *cells]
