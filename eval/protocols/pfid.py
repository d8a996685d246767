"""pFID-v1: Fréchet distance after a share of the tokens was replaced by near codes.

Encode once, find each token's nearest codes once, then for every cell (alpha, delta) of the grid
gather the codes at the drawn ranks, decode, and compare with the real images. Images of several
cells are decoded in one batch, no larger than the evaluation's. A tokenizer that decodes prefixes
is measured at every evaluated length: only kept tokens are perturbed. Of clips, every frame counts
as an image (`pFID-v1-frame`); draws are those of whole clips.

Letters: B batch, L positions, P branches, F factors, N tokens of an image, K codes of a branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vistok.config.contract import lacks
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import bar, frame_numbers
from vistok.eval.intervals import influences_of_images, of_mean, sample_of
from vistok.eval.protocols.base import Protocol, ProtocolConfig, Selects, register
from vistok.eval.protocols.common import positions_of
from vistok.eval.results.rows import Row
from vistok.layers.frames import frames
from vistok.metrics import FeatureStats
from vistok.metrics.influence import FeatureSample, error_of
from vistok.metrics.perturbed import (
    FULL_GRID,
    NAME,
    QUICK_GRID,
    Cell,
    batch_ranks,
    clip,
    expected_change,
    quick_subset,
    relative,
)
from vistok.quantizers.base import pick_rank
from vistok.runtime.distributed import sum_
from vistok.tokens import Tokens, TokenSpec

Mode = Literal["full", "quick", "quick_rel", "both", "none"]

_PUBLISHED = 4096  # codes for which the deltas were chosen
RELATIVE_LIMIT = 2**20  # codes up to which pFID-v1-rel is taken: 92,160 neighbors of each token
_HELD = 2**24  # neighbors' numbers at a time: 128 MB, of two images of 256 tokens of 2^18 codes


class Decoding(NamedTuple):
    """One Fréchet distance that has to be decoded; several numbers may share it."""

    length: int
    cell: Cell
    quick: bool  # over the quick variant's subset of the images


@dataclass(frozen=True)
class Number:
    """One reported number: the mean over some cells."""

    name: str
    length: int
    cells: tuple[tuple[Cell, Cell], ...]  # (as published, as used)
    quick: bool

    def jobs(self) -> list[Decoding]:
        return [Decoding(self.length, used, self.quick) for _, used in self.cells]


class PFIDConfig(ProtocolConfig):
    mode: Selects[Mode] = "both"
    """full: 15 cells at full length; quick: 3 cells at each length; quick_rel: 3 cells at full
    length, with δ as published and with δ scaled to the codebook; both: full and quick; none."""


@register
class PFID(Protocol):
    """Perturbed FID: rFID after a share of the tokens was replaced by near codes."""

    name = "pfid"
    media = ("image", "video")
    every_network = True
    Config = PFIDConfig

    def run(self, context: Context, config: PFIDConfig) -> list[Row]:
        """pFID-v1 (15 cells), pFID-v1-rel where K is not 4096, pFID-v1-quick at each length."""
        name, networks = context.per_frame(NAME), context.each("fid")
        if not networks:
            return []  # no Fréchet distance is defined on the features
        if config.mode == "none":
            context.skip(name, "asked for by pfid.mode=none")
            return []
        if not context.spec.vocab:
            context.skip(name, "undefined for continuous tokens: no code is near another")
            return []
        if lacks(context.tokenizer.quantizer, "neighbours"):
            context.skip(name, "its quantizer has no neighbours(queries, count)")
            return []
        if (
            config.mode in ("full", "both", "quick_rel")
            and branch_codes(context.spec) > RELATIVE_LIMIT
        ):
            reason = (
                f"neighborhoods that grow with more than {RELATIVE_LIMIT:,} codes are too large"
            )
            rel = f"{NAME}-rel-quick" if config.mode == "quick_rel" else f"{NAME}-rel"
            context.skip(context.per_frame(rel), reason)
        chosen, note = quick_subset(len(context.views), f"{context.unit}s")
        subset = None if note is not None else chosen.tolist()
        numbers = plan(context.spec, config.mode, subset is not None)
        jobs = list(dict.fromkeys(job for number in numbers for job in number.jobs()))
        done = reconstruct(context, jobs, subset)
        cells, title = sum(len(one.cells) for one in numbers), f"{context.run.name}: distances"
        with bar(cells * len(networks), title, "cell") as progress:
            return [
                row
                for one in networks
                for number in numbers
                for row in _rows(one, number, done, note, progress)
            ]


def branch_codes(spec: TokenSpec) -> int:
    """K: codes of one branch."""
    return math.prod(spec.vocab[: len(spec.vocab) // spec.branches])


def plan(spec: TokenSpec, mode: Mode, own_subset: bool) -> list[Number]:
    """The numbers to report; `own_subset`: quick ones use fewer images than full ones."""
    codes, whole = branch_codes(spec), spec.max_prefix
    pairs = lambda grid, used: tuple(zip(grid, used, strict=True))
    numbers = []
    if mode in ("full", "both"):
        numbers.append(Number(NAME, whole, pairs(FULL_GRID, clip(FULL_GRID, codes)), False))
        if codes != _PUBLISHED and codes <= RELATIVE_LIMIT:
            scaled = relative(FULL_GRID, codes)
            numbers.append(Number(f"{NAME}-rel", whole, pairs(FULL_GRID, scaled), False))
    if mode in ("quick", "both", "quick_rel"):
        cells = pairs(QUICK_GRID, clip(QUICK_GRID, codes))
        lengths = (whole,) if mode == "quick_rel" else spec.eval_lengths
        numbers += [Number(f"{NAME}-quick", k, cells, own_subset) for k in lengths]
    if mode == "quick_rel" and codes <= RELATIVE_LIMIT:
        scaled = relative(QUICK_GRID, codes)
        numbers.append(Number(f"{NAME}-rel-quick", whole, pairs(QUICK_GRID, scaled), own_subset))
    return numbers


@dataclass
class _Done:
    stats: dict[str, FeatureStats]  # by feature network
    samples: dict[str, FeatureSample]  # some of the vectors, for the interval
    changed: Tensor  # [] tokens whose code differs
    tokens: Tensor  # [] tokens that could


class Piece(NamedTuple):
    """Perturbed images of one cell that wait to be decoded."""

    job: Decoding
    codes: Tensor  # [b, L, F]
    row: Tensor  # [b] rows of the batch that they come from


def reconstruct(
    context: Context, jobs: list[Decoding], subset: Sequence[int] | None, together: bool = True
) -> dict[Decoding, _Done]:
    """Statistics of the decoded images of every job, summed over ranks: one pass over all images,
    and one over the `subset` for the quick jobs, if there is one. `together`: images of several
    cells may share a batch; False is for measuring what that gains."""
    of_subset = lambda job: job.quick and subset is not None
    done: dict[Decoding, _Done] = {}
    for only in (None, subset) if subset is not None else (None,):
        own = [job for job in jobs if of_subset(job) == (only is not None)]
        if own:
            done |= _reconstruct(context, own, only, together)
    return {job: done[job] for job in jobs}


def _reconstruct(
    context: Context, jobs: list[Decoding], only: Sequence[int] | None, together: bool
) -> dict[Decoding, _Done]:
    """The same in one pass over the images, or over some `only`."""
    zero = lambda: torch.zeros((), dtype=torch.float64, device=context.device)
    networks = [one.features for one in context.each("fid")]
    new = lambda: {one.name: FeatureStats(one.dim, context.device) for one in networks}
    numbers = len(context.views) if only is None else torch.tensor(list(only))
    some = lambda: {one.name: sample_of(context, one.dim, numbers) for one in networks}
    done = {job: _Done(new(), some(), zero(), zero()) for job in jobs}
    tokenizer = context.tokenizer
    title = f"{context.run.name}: perturb ({len(jobs)} cells)"
    for batch in context.batches(title, done, only):
        condition = context.condition(batch)
        quantized = tokenizer.quantize(context.latents(batch, condition))
        stored = quantized.indices[:, : context.spec.length]  # an encoder may emit more
        perturbed = _perturbed(context, done, stored, quantized.queries, batch.index)
        for length in dict.fromkeys(job.length for job in jobs):
            own = {job: one for job, one in done.items() if job.length == length}
            pieces = (Piece(job, perturbed[job], torch.arange(len(stored))) for job in own)
            for group in packed(pieces, context.batch) if together else ([p] for p in pieces):
                row = torch.cat([piece.row for piece in group])
                tokens = tokens_of(context, torch.cat([piece.codes for piece in group]), length)
                given = None if condition is None else condition.select(row)
                index = batch.index[row]
                decoded = to_uint8(context.decode(tokens, given, index))
                index, decoded = frame_numbers(index, decoded), frames(decoded)
                shares = [len(decoded) // len(row) * len(piece.row) for piece in group]
                for network in networks:
                    seen = network(decoded).split(shares)
                    for piece, features, own_index in zip(
                        group, seen, index.split(shares), strict=True
                    ):
                        done[piece.job].stats[network.name].update(features)
                        done[piece.job].samples[network.name].update(features, own_index)
    return {
        job: _Done(
            {name: stats.reduce() for name, stats in one.stats.items()},
            one.samples,
            sum_(one.changed),
            sum_(one.tokens),
        )
        for job, one in done.items()
    }


def _perturbed(
    context: Context, done: dict[Decoding, _Done], clean: Tensor, queries: Tensor, index: Tensor
) -> dict[Decoding, Tensor]:
    """Codes [B, L, F] of a batch perturbed as each job says; what was changed is counted.

    Neighbors are found for a few images at a time: those of all tokens are gigabytes where a
    neighborhood has thousands of codes.
    """
    spec, most = context.spec, max(job.cell.delta for job in done)
    small = Tokens.dtype(spec)
    found: dict[Decoding, list[Tensor]] = {job: [] for job in done}
    each = queries.shape[1] * most * len(spec.vocab)
    for rows in torch.arange(len(clean)).split(max(1, _HELD // each)):
        near = context.tokenizer.quantizer.neighbours(queries[rows], most)
        own = clean[rows]
        for job, one in done.items():
            moved = perturb(spec, own, near, index[rows], job, context.seed)
            one.changed += changed(spec, own, moved)
            one.tokens += len(own) * spec.positions_in(job.length) * spec.branches
            found[job].append(moved.to(small))
    return {job: torch.cat(codes) for job, codes in found.items()}


def packed(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Pieces in groups of `size` images (the last of fewer), cut where a group is full."""
    group: list[Piece] = []
    space = size
    for piece in pieces:
        while len(piece.row):
            now = Piece(piece.job, piece.codes[:space], piece.row[:space])
            piece = Piece(piece.job, piece.codes[space:], piece.row[space:])
            group.append(now)
            space -= len(now.row)
            if space == 0:
                yield group
                group, space = [], size
    if group:
        yield group


def perturb(
    spec: TokenSpec, clean: Tensor, near: Tensor, index: Tensor, job: Decoding, seed: int
) -> Tensor:
    """Clean indices [B, L, F] -> the same with the kept positions perturbed as `job` says.

    Args:
        near: [B, L, P, count, F/P] nearest codes, best first.
        index: [B] places of the images: the key of the draws.
    """
    kept = torch.tensor(positions_of(spec, job.length), device=clean.device)
    ranks = batch_ranks(index, len(kept), job.cell, near.shape[2], seed).to(near.device)
    picked = pick_rank(near[:, kept], ranks).to(clean)
    # Rank 0 is the clean code by definition; a float tie must not change it.
    share = clean.shape[-1] // near.shape[2]
    moved = (ranks > 0).repeat_interleave(share, -1)  # [B, kept, F]
    result = clean.clone()
    result[:, kept] = torch.where(moved, picked, clean[:, kept])
    return result


def changed(spec: TokenSpec, clean: Tensor, moved: Tensor) -> Tensor:
    """Number of tokens (position x branch) whose code differs."""
    apart = (clean != moved).unflatten(-1, (spec.branches, -1)).any(-1)
    return apart.sum()


def tokens_of(context: Context, indices: Tensor, length: int) -> Tokens:
    size = context.sides if len(context.sides) == 3 else (1, *context.sides)
    tokens = Tokens.of(context.spec, indices, size=size)
    return tokens if length == context.spec.max_prefix else tokens.prefix(length)


def _rows(
    context: Context, number: Number, done: dict[Decoding, _Done], subset: str | None, progress: Any
) -> list[Row]:
    """The cells, and their mean, through the context's network; `progress` counts the cells."""
    spec = context.spec
    note = (
        f"query=latent, N={spec.positions_in(number.length) * spec.branches}, "
        f"K={branch_codes(spec)}, {_deltas(number)}"
    )
    if number.name.endswith("-quick"):
        unit = context.unit
        rule = subset or f"every 10th {unit} up to 5,000"
        note += f", {unit}s: {rule}; the reference is every {unit}"
    name, rows, influences = context.per_frame(number.name), [], []
    network, real = context.features, context.views.stats(context.features)
    for (asked, used), job in zip(number.cells, number.jobs(), strict=True):
        one = done[job]
        progress.update()
        changes = float(one.changed / one.tokens)
        mine, sample = one.stats[network.name], one.samples[network.name]
        influences.append(influences_of_images(context, network, sample, mine, real))
        rows.append(
            context.frechet_row(
                f"{name}-cell",
                mine,
                error=error_of(influences[-1], sample.total),
                length=number.length,
                seed=context.seed,
                point={"alpha": asked.alpha, "delta": asked.delta},
                measured={
                    "delta": used.delta,
                    "changed": changes,
                    "expected": expected_change(*used),
                },
                note=note,
            )
        )
    mean = sum(row.number for row in rows) / len(rows)  # also of one that is infinite
    error = error_of(torch.stack(influences).mean(0), sample.total)  # of the same images
    summary = context.row(
        name,
        mean,
        length=number.length,
        seed=context.seed,
        features=rows[0].features,
        count=rows[0].count,
        bias=rows[0].bias,
        few=rows[0].few,
        note=f"mean of {len(rows)} cells, {note}",
        **of_mean(context, mean, error),
    )
    return [summary, *rows]


def _deltas(number: Number) -> str:
    moves = {asked.delta: used.delta for asked, used in number.cells}
    if number.name.removesuffix("-quick").endswith("-rel"):
        return "deltas times K/4096: " + " ".join(map(str, moves.values()))
    clipped = [f"{a} to {u}" for a, u in moves.items() if a != u]
    return "deltas clipped to K: " + ", ".join(clipped) if clipped else "no delta clipped"
