"""Nearest training samples of the evaluated ones, for protocols that mix a sample with its
neighbor.

Codes are compared by what the decoder reads: the values that the quantizer looks up. They are
looked up block by block, since those of all images may not fit in memory.

Letters: n evaluated samples, m samples to choose from, L positions, F factors, D numbers that the
decoder reads of a sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vistok.eval.context import Context
from vistok.eval.images import Views, bar
from vistok.eval.protocols.pfid import tokens_of
from vistok.eval.reference.training_set import Picked
from vistok.eval.resumable import digest, read_tensors, write_tensors
from vistok.metrics.nearest_samples import Vectors, nearest_samples
from vistok.runtime import distributed
from vistok.runtime.modes import evaluating

_HELD = 2**27  # looked-up numbers of a set that are kept in memory: 512 MB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Neighbors:
    """The nearest samples of some evaluated ones, the same on every rank."""

    index: Tensor  # [n, k] int64, on the CPU
    squares: Tensor  # [n, k] float64: squared distances


def same_places(views: Views, base: Views) -> Tensor | None:
    """[n] place in `base` of each evaluated sample itself, -1 where it is not there; None if
    these are other samples. They are the same ones if their manifests are."""
    whole, rows = base.dataset, None
    if isinstance(whole, Picked):
        whole, rows = whole.inner, torch.from_numpy(whole.rows)
    if whole.record()["manifest"] != views.record["manifest"]:
        return None
    places = torch.full((max(len(views), len(whole)),), -1)
    rows = torch.arange(len(base)) if rows is None else rows[: len(base)]
    places[rows] = torch.arange(len(rows))
    return places[: len(views)]


def values_of(context: Context, codes: Tensor, length: int) -> Tensor:
    """codes [b, L, F] -> [b, D] fp32: what the decoder reads of a prefix; without the positions
    that a prefix of tokens drops."""
    tokenizer, spec = context.tokenizer, context.spec
    with evaluating(tokenizer):
        values = tokenizer.values(tokens_of(context, codes, length)).float()
    if spec.prefix == "token" and values.shape[1] == spec.length:
        values = values[:, :length]
    return values.flatten(1)


def code_vectors(context: Context, codes: Tensor, length: int) -> Vectors:
    """A set of sequences [n, L, F] as the vectors between which distances are measured."""
    read = lambda start, stop: values_of(context, codes[start:stop], length)
    found = Vectors(len(codes), read(0, 1).shape[1], read)
    if found.count * found.width > _HELD:
        return found
    return Vectors.of(torch.cat([read(*block) for block in found.blocks(context.batch)]))


def search(
    context: Context,
    queries: Vectors,
    samples: Vectors,
    count: int = 1,
    exclude: Tensor | None = None,
    title: str = "nearest",
) -> Neighbors:
    """`nearest_samples`, each rank its share of the queries."""
    share = (distributed.rank(), distributed.world_size())
    with bar(queries.count, f"{context.run.name}: {title}") as progress:
        advance = lambda rows: progress.update(rows * share[1])
        near = nearest_samples(queries, samples, count, exclude, share, advance)
    return Neighbors(distributed.sum_(near.index).cpu(), distributed.sum_(near.squares).cpu())


def kept(
    context: Context, base: Views, about: dict[str, Any], find: Callable[[], Neighbors]
) -> Neighbors:
    """What `find` gives, from the cache folder if an earlier evaluation has found it.

    Args:
        about: all that they depend on beside tokenizer and images.
    """
    cache = context.views.cache
    if cache.folder is None:
        return find()
    images = {"evaluated": context.views.identity, "samples": base.identity}
    model = {"weights": context.run.sha256, "config": context.run.described}
    key = digest({**images, **model, **about, "device": context.device.type})
    path, found = cache.path(f"neighbors-{key[:32]}.safetensors"), None
    if path.is_file() and not cache.fresh:
        try:
            tensors, read = read_tensors(path, "neighbors")
            found = Neighbors(**tensors) if read == {"key": key} else None
        except (ValueError, TypeError) as error:
            log.warning("%s: %s; neighbors are searched again", path, error)
    if not distributed.agree(found is None) and found is not None:
        return found
    found = find()
    if distributed.rank() == 0:
        write_tensors(path, asdict(found), "neighbors", {"key": key})
    return found
