"""Base class of quantizers.

Letters: B batch, N latents, M values, L token positions, F factors, P branches, S blocks, D width
of latents, d of codes. Atoms quantize latents one by one: then N = M = L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vistok.config.contract import base_of, needed_by, required
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Layout
from vistok.quantizers.straight_through import straight_through
from vistok.runtime.precision import no_autocast
from vistok.tokens import TokenSpec


@base_of("quantizer")
class Quantizer(nn.Module):
    """Latents -> codes -> values, in fp32.

    Subclasses set `latent_dim` (width they read), `value_dim` (width they give), `vocab` and
    `loss_weights`, and implement `quantize`, `lookup` (unless `vocab` is ()) and, for latent
    perturbation and pFID, `neighbours`. One whose tokens are not its latents one by one
    (scales, branches) also implements `layout`, and `partial` if its blocks are scales.
    """

    latent_dim: int
    value_dim: int
    vocab: tuple[int, ...]
    branches: int = 1
    """P: codebooks that are searched apart."""
    loss_weights: Mapping[str, float]
    wants_data: bool = False
    """True until `initialize` has seen latents (k-means or data-dependent codebooks)."""
    residual: bool = False
    """True if codes approximate the latents themselves, so that what they miss can be quantized
    again (multi_scale, residual)."""
    curved: bool = False
    """True if the gradient of a code runs through a curve of its latent (fsq): each residual level
    then has its own, where others pass the gradient of the sum to the latents."""
    remedy: str = "lower the learning rate or use fewer codes"
    """Advice when few codes are in use: the second half of an alarm."""

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        """Tokens and values that latents on `grids` become.

        Args:
            stored: latents that are kept as tokens, the first so many; None = all. An encoder may
                emit more in training than it stores (ReTok's padding).

        `spec.prefix` is "block" or "per_block" if the quantizer can leave blocks, or ends of
        blocks, out of its values by itself, else "none".
        """
        blocks = tuple(grids) if stored is None else ((stored,),)
        spec = TokenSpec(blocks=blocks, vocab=self.vocab, dim=self.value_dim)
        return Layout(spec, tuple(grids), self.value_dim)

    def forward(self, latents: Latents, draws: Draws | None = None) -> Quantized:
        """[B, N, D] latents on their grids -> values, indices, queries, losses; in fp32.

        `draws.ranks` replaces codes by their r-th nearest (latent perturbation): `values` then
        carries the perturbed codes, `clean` and `indices` do not.
        """
        draws = draws or Draws()
        with no_autocast(latents.values.device):
            result = self.quantize(replace(latents, values=latents.values.float()), draws)
            if draws.ranks is None:
                return result
            # An encoder may emit latents that no token stores (ReTok's padding): they stay clean.
            more = result.queries.shape[1] - draws.ranks.shape[1]
            ranks = nn.functional.pad(draws.ranks, (0, 0, 0, more))
            indices = self.perturb(result.queries, ranks, draws.top_rank)
            through = straight_through(self.rebuilt(indices, draws), result.values)
            # The gradient goes on to the latents and never to the codebook (RobusTok).
            moved = (ranks > 0).any(-1, keepdim=True)  # [B, L, 1]
            if moved.shape[1] != result.values.shape[1]:  # no value is one token's alone
                moved = moved.any(1, keepdim=True)  # [B, 1, 1]
            values = torch.where(moved, through, result.values)
        return replace(result, values=values)

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Outcomes of a training step for samples `index` [B]; None unless it is stochastic."""
        return None

    @required
    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        """fp32 latents -> Quantized without perturbation.

        Obeys `draws.part("quantizer")` and, where its values depend on blocks, `draws.levels` and
        `draws.keep`.
        """
        raise NotImplementedError

    @required(when="vocab")
    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        """indices [B, L, F] -> values [B, M, value_dim] fp32: exactly those that `forward` gives.

        Args:
            keep: [B] kept blocks (or [B, S] kept positions of each), for quantizers whose values
                are sums over blocks; others ignore it, since the decoder hides what is missing.
        """
        raise NotImplementedError

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        """Values of indices [B, L, F] as a training pass with these draws gives them."""
        return self.lookup(indices, draws.keep)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """fp32 latents [B, N, D] -> (indices [B, L, F], queries [B, L, P, d]) of their codes.

        Counts usage in training, as `quantize` does. Composed quantizers call it for each level.
        """
        result = self.quantize(latents, Draws())
        return result.indices, result.queries

    @torch.no_grad()
    def coded(self, latents: Latents) -> Quantized:
        """`forward` for who wants no losses; overridden where they cost more than the codes."""
        return self(latents)

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        """Entropy terms of latents, those that have a weight; {} for a quantizer without them.

        Args:
            z: [B, n, d] latents.
            weights: [B] of the samples, 1 on average over the global batch; None = all 1.
            magnitude: factor of the codes that the latents are compared with.
        """
        return {}

    def weights_at(self, progress: Progress) -> Mapping[str, float]:
        """Weights of the losses at a step of training: `loss_weights`, unless a schedule moves
        them."""
        return self.loss_weights

    def pass_through(self, values: Tensor, through: Tensor) -> Tensor:
        """`values` forward; backward the gradient on to the latents `through`."""
        return straight_through(values, through)

    def restored(self, values: Tensor) -> Tensor:
        """Values [B, M, value_dim] -> the latents that they stand for, in the latents' own units.

        Post-training quantization hands them to a decoder that was trained on latents. Raises
        InputError for a quantizer whose codes do not tell them (directions, embeddings).
        """
        if self.residual:
            return values
        raise InputError(
            f"quantizer: codes of {type(self).__name__} do not give its latents back, so that no "
            "trained decoder can read them; expected scalar, fsq, vq with l2_norm=false, or "
            "residual or product of them"
        )

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        """Values of the first `blocks` blocks, resized to the grid `onto`: [B, cells, value_dim].

        Next-scale generators read them. Raises ValueError for a quantizer without scales.
        """
        raise InputError(
            f"{type(self).__name__} has no scales, so there are no values of its first {blocks}; "
            "expected a multi_scale quantizer"
        )

    @needed_by("latent_perturbation and pFID")
    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        """queries [B, L, P, d] -> indices [B, L, P, count, F/P]: the nearest codes, best first.

        Order is by the quantizer's own score; ties go to the lower index. `count` is clipped to
        the number of codes.
        """
        raise InputError(
            f"{type(self).__name__} has no neighbours(queries, count), which latent_perturbation "
            "and pFID need; expected the indices [B, L, P, count, F/P] of the nearest codes"
        )

    def perturb(self, queries: Tensor, ranks: Tensor, top: int | None = None) -> Tensor:
        """ranks [B, L, P] -> indices [B, L, F] of the r-th nearest codes (0 = the clean one).

        Args:
            top: no rank is larger; None asks the ranks, which a GPU has to finish its work for.
        """
        top = int(ranks.max()) if top is None else top
        with no_autocast(queries.device):
            near = self.neighbours(queries, top + 1)
        return pick_rank(near, ranks)

    def remember(self, quantized: Quantized) -> None:
        """Keep what `after_step` wants whole of a training pass (latents to revive codes with).

        Called beside `forward`, not by it: what grows from one micro-batch to the next would be
        compiled anew for each.
        """

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Set the codebook from latents [B, N, D] of the global batch, if it wants data."""

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        """Update running statistics once per optimizer step.

        Returns events to be logged: scalars, which stay on the device.
        """
        return {}

    @torch.no_grad()
    def forget(self) -> None:
        """The step was skipped: drop what `after_step` would have looked at."""


def pick_rank(near: Tensor, ranks: Tensor) -> Tensor:
    """near [B, L, P, count, F/P], ranks [B, L, P] -> indices [B, L, F].

    Ranks beyond the number of codes are clipped to the farthest.
    """
    rank = ranks.to(near.device).clamp(max=near.shape[3] - 1)
    index = rank[..., None, None].expand(*rank.shape, 1, near.shape[-1])
    return near.gather(3, index).flatten(2)
