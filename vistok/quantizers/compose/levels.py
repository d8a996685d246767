"""Residual quantization in levels: each codes what the sum of the earlier ones misses.

    rest_0 = f;  q_s = lookup(search(down(rest_s)));  rest_{s+1} = rest_s - up(q_s)
    value  = up(q_0) + ... + up(q_{S-1})

Losses compare the sum after *each* level with f and are averaged over levels; or (`learn: levels`)
each level's codes with its own latents. A level that is dropped (`draws.levels`), or lies behind a
kept prefix of blocks (`draws.keep`), is left out of the sum; the residual always advances, so that
codes do not depend on what is dropped, unless `dropped: skip` says otherwise.
Letters: B batch, M values, L positions, S levels, P branches, F factors, d code width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, ConfigError, PartOf
from vistok.config.contract import required
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Layout, cells
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.base import Quantizer
from vistok.quantizers.codebook import CodebookQuantizer
from vistok.quantizers.straight_through import straight_through
from vistok.runtime import distributed
from vistok.runtime.precision import no_autocast
from vistok.tokens import TokenSpec


class LevelsConfig(Config):
    """Options of residual levels."""

    quantizer: Annotated[Any, PartOf("quantizer")] = VQConfig(dim=32, l2_norm=False)
    """Quantizer of a level; its codes approximate its latents (vq, lfq, fsq, or a product of
    them)."""
    normalize: bool = False
    """Latents to unit length before the first level (BSQ)."""
    magnitude: float = Field(default=1.0, gt=0, le=16)
    """Factor of the codes from one level to the next."""
    learn: Literal["sums", "levels"] = "sums"
    """sums: losses compare the sum after each level with the latents, to which values hand their
    gradient on (VAR). levels: each level is a quantizer of its own, with its losses, averaged over
    the levels of an image that were not dropped, and its gradient, through the way down, to the
    latents (TokenFlow); for vq and dual."""
    dropped: Literal["pass", "skip"] = "pass"
    """A level that a regularizer drops takes its codes from the residual all the same, and later
    levels code what is left; or leaves it to them (skip: TokenFlow)."""
    entropy_images: Literal["active", "first_two"] = "active"
    """Images over which entropies of a level are taken (LFQ): those that keep it; or sample 1 of
    each process for every image that keeps it and sample 0 for every other one (XQ-GAN, which
    indexes by an integer mask)."""
    entropy_by_share: bool = False
    """Entropies of a level are divided by its share of active images once more (XQ-GAN)."""


class Levels(Quantizer):
    """Base of quantizers with residual levels; one level is one block of tokens.

    Subclasses call `set_levels` and implement `down` and `up`.
    """

    def __init__(self, config: LevelsConfig, count: int, shared: bool) -> None:
        """
        Args:
            count: S. shared: whether all levels have one codebook.
        """
        super().__init__()
        self.config, self.count = config, count
        self.atoms = nn.ModuleList(build(config.quantizer) for _ in range(1 if shared else count))
        atom = self.atom(0)
        if not (atom.residual and atom.vocab and atom.latent_dim == atom.value_dim):
            raise ConfigError(
                f"quantizer: '{config.kind}' quantizes what the codes so far miss, and codes of "
                f"'{config.quantizer.kind}' do not approximate its latents; expected vq, lfq, fsq "
                "or a product of them by channels"
            )
        if config.learn == "levels" and not isinstance(atom, CodebookQuantizer):
            raise ConfigError(
                f"quantizer: learn=levels takes the losses of a codebook, and "
                f"'{config.quantizer.kind}' has none; expected vq or dual, or learn=sums"
            )
        self.latent_dim = self.value_dim = atom.value_dim
        self.vocab, self.branches, self.remedy = atom.vocab, atom.branches, atom.remedy
        # What levels and their convolutions learn by, where the atom itself has no such loss.
        # FSQ has no codebook; levels that learn alone have their atom's losses.
        learns = {"codebook": 1.0} if config.learn == "sums" and not atom.curved else {}
        self.loss_weights = {**learns, **atom.loss_weights}
        self.grid: Grid | None = None
        self.blocks: tuple[Grid, ...] = ()

    # -- for subclasses -------------------------------------------------------------------------

    @required
    def down(self, rest: Tensor, level: int) -> Tensor:
        """Residual [B, M, d] -> latents of a level [B, n, d]."""
        raise NotImplementedError

    @required
    def up(self, codes: Tensor, level: int) -> Tensor:
        """Codes of a level [B, n, d] -> their part of the values [B, M, d]."""
        raise NotImplementedError

    def set_levels(self, grid: Grid, blocks: Sequence[Grid]) -> Layout:
        """Layout of values on `grid` whose levels are `blocks`."""
        self.grid, self.blocks = tuple(grid), tuple(blocks)
        spec = TokenSpec(
            blocks=self.blocks,
            vocab=self.vocab,
            dim=self.value_dim,
            branches=self.branches,
            prefix="block",
        )
        return Layout(spec, (self.grid,), self.value_dim)

    # -- the quantizer --------------------------------------------------------------------------

    def atom(self, level: int) -> Quantizer:
        return self.atoms[level if len(self.atoms) > 1 else 0]

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        f = latents.values
        if self.config.normalize:
            f = F.normalize(f, dim=-1, eps=1e-12)
        active = self._active(draws, len(f), f.device)
        if self.config.learn == "levels":
            return self._alone(f, active, draws)
        target = rest = f.detach()
        share = None if active is None else distributed.mean(active.mean(0))  # [S]
        value, clean = torch.zeros_like(rest), torch.zeros_like(rest)
        curves: list[Tensor] = []
        indices, queries, terms = [], [], []
        for level in range(self.count):
            factor = self.config.magnitude**level
            latent = self.down(rest, level)
            found, query = self.atom(level).search(Latents(latent / factor, (self.blocks[level],)))
            part = self.up(self._codes(found, level), level)
            one = None if active is None else _Active(active[:, level], share[level])
            entropies = self._entropies(f - value.detach(), level, one)
            if self.atom(0).curved:
                latent = self.down(f - clean, level) / factor
                codes = self.atom(level).lookup(found)
                curve = self.atom(level).pass_through(codes, latent) * factor
                curves.append(self.up(curve, level))
            shown = part if one is None else part * one.mask[:, None, None]
            value, taken = value + shown, self._taken(part, draws, level)
            clean, rest = clean + taken, rest - taken
            losses = {}
            if not self.atom(0).curved:
                losses = {
                    "codebook": _mean_square(value, target, one),
                    "commitment": _mean_square(value.detach(), f, one),
                }
            indices.append(found)
            queries.append(query)
            terms.append(losses | entropies)
        losses = {name: sum(one[name] for one in terms) / self.count for name in terms[0]}
        values = self._pass_through(value.detach(), f, curves, active)
        clean = values if active is None else self._pass_through(clean, f, curves, None)
        return Quantized(values, clean, torch.cat(indices, 1), torch.cat(queries, 1), losses)

    def weights_at(self, progress: Progress) -> Mapping[str, float]:
        return {**self.loss_weights, **self.atom(0).weights_at(progress)}

    def _alone(self, f: Tensor, active: Tensor | None, draws: Draws) -> Quantized:
        """The pass in which each level learns by itself."""
        rest, value, clean = f, torch.zeros_like(f), torch.zeros_like(f).detach()
        shares, own = active, None
        if active is not None:  # of a level in the losses of an image
            shares = active / active.sum(1, keepdim=True).clamp(min=1)
            own = distributed.mean(shares.mean(0))  # [S]
        indices, queries, terms = [], [], []
        for level in range(self.count):
            factor, atom = self.config.magnitude**level, self.atom(level)
            latent = self.down(rest, level) / factor
            found, query = atom.search(Latents(latent, (self.blocks[level],)))
            z, codes = atom.given(latent), atom.lookup(found)
            part = self.up(atom.pass_through(codes.detach(), z) * factor, level)
            one = None if active is None else _Active(shares[:, level], own[level])
            scale = 1 / self.count if own is None else own[level]
            losses = {
                "codebook": _mean_square(codes, z.detach(), one),
                "commitment": _mean_square(codes.detach(), z, one),
                **atom.entropies(latent, None if one is None else one.weights),
            }
            value = value + (part if active is None else part * active[:, level, None, None])
            taken = self._taken(part, draws, level)
            clean, rest = clean + taken, rest - taken
            indices.append(found)
            queries.append(query)
            terms.append({name: term * scale for name, term in losses.items()})
        names = [name for name in terms[0] if not (atom.ema and name == "codebook")]
        losses = {name: sum(one[name] for one in terms) for name in names}
        return Quantized(value, clean, torch.cat(indices, 1), torch.cat(queries, 1), losses)

    def _taken(self, part: Tensor, draws: Draws, level: int) -> Tensor:
        """What the residual loses to a level whose part of the values is [B, M, d]."""
        part = part.detach()
        if self.config.dropped == "pass" or draws.levels is None:
            return part
        return part * draws.levels[:, level, None, None].to(part)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.rebuilt(indices, Draws(keep=keep))

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        active = self._active(draws, len(indices), indices.device)
        with no_autocast(indices.device):
            return self._sum(indices, active, self.count)

    def restored(self, values: Tensor) -> Tensor:
        if self.config.normalize:
            raise InputError(
                f"quantizer: '{self.config.kind}' with normalize=true keeps the direction of a "
                "latent alone, so that no trained decoder can read its codes; set normalize=false"
            )
        self.atom(0).restored(values.new_zeros(1, 1, self.value_dim))  # an error if it cannot
        return values  # what is left to code are differences: sums are latents, behind any curve

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        """Values of the first `blocks` blocks [B, cells, value_dim], area-averaged onto a grid."""
        if not 1 <= blocks <= self.count:
            raise InputError(f"blocks={blocks}: expected 1..{self.count}, the number of levels")
        with no_autocast(indices.device):
            return resized(self._sum(indices, None, blocks), self.grid, onto, "area")

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        if len(self.atoms) == 1:
            return self.atom(0).neighbours(queries, count)
        parts = queries.split([cells(block) for block in self.blocks], dim=1)
        near = [self.atom(level).neighbours(part, count) for level, part in enumerate(parts)]
        return torch.cat(near, dim=1)

    def _pass_through(
        self, values: Tensor, f: Tensor, curves: Sequence[Tensor], active: Tensor | None
    ) -> Tensor:
        """`values` forward; backward the gradient to the latents f, or to the levels' curves."""
        if not curves:
            return self.atom(0).pass_through(values, f)
        levels = torch.stack(list(curves))
        if active is not None:
            levels = levels * active.T[:, :, None, None]
        return straight_through(values, levels.sum(0))

    def _codes(self, indices: Tensor, level: int) -> Tensor:
        """Indices of a level [B, n, F] -> codes [B, n, d]."""
        return self.atom(level).lookup(indices) * self.config.magnitude**level

    def _sum(self, indices: Tensor, active: Tensor | None, count: int) -> Tensor:
        """[B, L, F] -> values [B, M, d] of the first `count` levels, in the order of `quantize`."""
        sizes = [cells(block) for block in self.blocks]
        if indices.shape[1] != sum(sizes):
            raise InputError(
                f"indices of {indices.shape[1]} positions; expected {sum(sizes)}: values are sums "
                "over all levels, and no code has a value of its own"
            )
        value = torch.zeros(len(indices), cells(self.grid), self.value_dim, device=indices.device)
        parts = indices.split(sizes, dim=1)
        for level, part in enumerate(parts[:count]):
            given = self.up(self._codes(part, level), level)
            value = value + (given if active is None else given * active[:, level, None, None])
        return value

    def _active(self, draws: Draws, batch: int, device: torch.device) -> Tensor | None:
        """[B, S] fp32, 1 for levels that count; None = all of them do."""
        if draws.levels is None and draws.keep is None:
            return None
        active = torch.ones(batch, self.count, device=device)
        if draws.levels is not None:
            active = active * draws.levels.to(active)
        if draws.keep is not None:
            place = torch.arange(self.count, device=device)
            active = active * (place < draws.keep.to(device)[:, None])
        return active

    def _entropies(self, x: Tensor, level: int, one: _Active | None) -> dict[str, Tensor]:
        """Entropy terms of what is still missing in front of a level, if the atom has some.

        Args:
            x: [B, M, d], the latents less the sum of the earlier levels.
        """
        weights = None if one is None else one.weights
        if self.config.entropy_images == "first_two":
            mask = x.new_ones(len(x)) if one is None else one.mask
            weights = torch.zeros_like(mask)
            weights[0] += (1 - mask).sum()
            weights[min(1, len(x) - 1)] += mask.sum()
        terms = self.atom(level).entropies(x, weights, self.config.magnitude**level)
        if one is not None and self.config.entropy_by_share:
            terms = {name: term / one.least_share for name, term in terms.items()}
        return terms

    # -- draws and upkeep -----------------------------------------------------------------------

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        return self.atom(0).draw(layout, index, rng, progress)

    @property
    def wants_data(self) -> bool:
        return any(atom.wants_data for atom in self.atoms)

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Codebooks from the residuals of levels that were coded exactly: those that each level
        would search for if the earlier ones had a code for everything."""
        if not self.wants_data:
            return
        rest = latents.values.float()
        if self.config.normalize:
            rest = F.normalize(rest, dim=-1, eps=1e-12)
        wanted = []
        for level in range(self.count):
            ideal = self.down(rest, level)
            wanted.append(ideal / self.config.magnitude**level)
            rest = rest - self.up(ideal, level)
        if len(self.atoms) == 1:
            wanted = [torch.cat(wanted, dim=1)]
        for level, (atom, rows) in enumerate(zip(self.atoms, wanted, strict=True)):
            own = rng if len(self.atoms) == 1 else rng.child(f"level{level}")
            atom.initialize(Latents(rows, ((rows.shape[1],),)), own)

    def remember(self, quantized: Quantized) -> None:
        sizes = [cells(block) for block in self.blocks]
        parts = [quantized.queries]
        if len(self.atoms) > 1:
            parts = quantized.queries.split(sizes, dim=1)
        for atom, queries in zip(self.atoms, parts, strict=True):
            atom.remember(Quantized(quantized.values, quantized.clean, None, queries))

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        return after_steps(self.atoms, rng, "level")

    @torch.no_grad()
    def forget(self) -> None:
        for atom in self.atoms:
            atom.forget()


class _Active:
    """Images of this process that keep a level: mask [B] of 0 and 1, and their share of the global
    batch."""

    def __init__(self, mask: Tensor, share: Tensor) -> None:
        self.mask = mask
        # A level that no image keeps has no loss: 0 over the least share, not 0 over 0.
        self.least_share = share.clamp(min=torch.finfo(share.dtype).eps)
        self.weights = mask / self.least_share


def _mean_square(a: Tensor, b: Tensor, one: _Active | None) -> Tensor:
    """Mean square of the difference over the active images of the global batch: the mean over
    processes of what each returns."""
    if one is None:
        return F.mse_loss(a, b)
    return ((a - b).square().flatten(1).mean(1) * one.weights).mean()


def resized(values: Tensor, grid: Grid, onto: Grid, mode: str) -> Tensor:
    """[B, cells of a 2D grid, d] -> [B, cells of another, d]; "area" averages, "bicubic" is
    PyTorch's (a = -0.75, corners not aligned, no antialiasing)."""
    if tuple(grid) == tuple(onto):
        return values
    # `contiguous`, because kernels for channels-last maps add in another order.
    maps = values.transpose(1, 2).unflatten(2, grid).contiguous()
    return F.interpolate(maps, tuple(onto), mode=mode).flatten(2).transpose(1, 2)


def after_steps(parts: nn.ModuleList, rng: Rng, name: str) -> dict[str, float | Tensor]:
    """`after_step` of several quantizers, each with random numbers of its own; events are added."""
    events: dict[str, float | Tensor] = {}
    for number, part in enumerate(parts):
        own = rng if len(parts) == 1 else rng.child(f"{name}{number}")
        for key, value in part.after_step(own).items():
            events[key] = events[key] + value if key in events else value
    return events
