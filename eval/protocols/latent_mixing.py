"""iFID-v1: continuous latents halfway to a near training sample, decoded.

The authors' script (Xu et al. 2026, arXiv 2603.05630) takes the ten training latents of the largest
cosine similarity, draws one of them with probabilities softmax(-mean squared difference), and
decodes the middle of the arc between both. The draw is keyed here, so that the number does not
depend on batches; the remaining differences stand in docs/ideas/ifid.md.

Letters: n evaluated samples, m training samples, L positions, D = L x dim numbers, k candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.protocols.neighbors import kept, search
from vistok.eval.results.rows import Row
from vistok.layers.frames import frames
from vistok.metrics.interpolated import CANDIDATES, WEIGHT, chosen_candidate, slerp
from vistok.metrics.nearest_samples import Vectors
from vistok.runtime.distributed import sum_
from vistok.tokens import Tokens

MOST = 2**32  # numbers of all latents together: 16 GB


def rows(
    context: Context,
    base: Views,
    name: str,
    chosen: Tensor,
    only: Sequence[int] | None,
    own: Tensor | None,
    about: str,
    note: str,
) -> list[Row]:
    """iFID-v1 of the samples `chosen` [n].

    Args:
        only: the same numbers, None where these are all.
        base: samples to choose from; `own`: [N] place in it of each evaluated one itself.
        about: what they are chosen from; `note`: which samples are mixed.
    """
    spec = context.spec
    width = spec.length * spec.dim
    if (len(base) + len(context.views)) * width > MOST:
        context.skip(name, f"latents of {width:,} numbers; lower ifid.train_images")
        return []
    whole = None if base is context.views else only
    clean = all_latents(context, context.views, "encode", whole)
    others = clean if base is context.views else all_latents(context, base, "encode neighbors")
    find = lambda: search(
        context,
        directions(clean[chosen]),
        directions(others),
        CANDIDATES,
        None if own is None else own[chosen],
    )
    near = kept(context, base, {"latents": "cosine", "rows": len(chosen), "k": CANDIDATES}, find)
    mixed = torch.zeros_like(clean)
    for place, candidates in zip(chosen.split(256), near.index.split(256), strict=True):
        mixed[place] = between(clean[place], others[candidates], place, context.seed)
    stats = context.new_stats()
    size = context.sides if len(context.sides) == 3 else (1, *context.sides)
    for batch in context.batches(f"{context.run.name}: mix", stats, only):
        index, condition = batch.index, context.condition(batch)
        tokens = Tokens(spec, values=mixed[index].view(-1, spec.length, spec.dim), size=size)
        decoded = to_uint8(context.decode(tokens, condition, index))
        stats.update(context.features(frames(decoded)))
    cosine = 1 - float(near.squares[:, 0].mean()) / 2
    how = f"one of the {CANDIDATES} nearest by cosine (of the first {cosine:.4g} on average)"
    noted = f"{about}: {how}, at {WEIGHT:g} of the arc"
    return [
        context.frechet_row(
            name,
            stats.reduce(),
            length=spec.max_prefix,
            seed=context.seed,
            note="; ".join(filter(None, (noted, note))),
        )
    ]


def all_latents(
    context: Context, views: Views, title: str, only: Sequence[int] | None = None
) -> Tensor:
    """[N, D] fp32 on the CPU: the tokens' values of all images (of `only` these), by index, on
    every rank."""
    spec = context.spec
    found = torch.zeros((len(views), spec.length * spec.dim))
    for batch in views.batches(f"{context.run.name}: {title}", only=only):
        tokens = context.encode(batch, context.condition(batch))
        found[batch.index] = tokens.values.float().flatten(1).cpu()
    return sum_(found)


def directions(latents: Tensor) -> Vectors:
    """Unit vectors [n, D]: their squared distance is 2 - 2 cosine."""

    def read(start: int, stop: int) -> Tensor:
        rows = latents[start:stop].double()
        return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)

    return Vectors(len(latents), latents.shape[1], read)


def between(clean: Tensor, candidates: Tensor, index: Tensor, seed: int) -> Tensor:
    """Latents [b, D] and their candidates [b, k, D] -> mixed latents [b, D] fp32."""
    squares = ((clean[:, None] - candidates) ** 2).mean(2)
    picked = chosen_candidate(squares, index, seed)
    other = candidates[torch.arange(len(clean)), picked]
    return slerp(clean, other, WEIGHT).float()
