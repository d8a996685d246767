"""What every quantizer offers, and the straight-through estimator (it lives here only).

Letters: B batch, N latents = L positions, F factors, P branches, D width of latents, d of codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.tokens import TokenSpec


def straight_through(values: Tensor, through: Tensor) -> Tensor:
    """`values` in the forward pass, bit by bit; the gradient of `through` in the backward pass."""
    return values.detach() + (through - through.detach())


class Quantizer(nn.Module):
    """Base of the atoms: they quantize vectors one by one.

    Subclasses set `latent_dim` (width they read), `value_dim` (width they give), `vocab`, and
    implement `quantize`, `lookup` and `neighbours`.
    """

    latent_dim: int
    value_dim: int
    vocab: tuple[int, ...]
    loss_weights: Mapping[str, float]
    wants_data: bool = False
    """True until `initialize` has seen latents (k-means or data-dependent codebooks)."""
    remedy: str = "lower the learning rate or use fewer codes"
    """What to try when few codes are in use: the second half of an alarm."""

    def spec(self, grid: tuple[int, ...], prefix: str = "none") -> TokenSpec:
        """The token spec of latents on `grid`; `cut` is what the decoder allows."""
        return TokenSpec(blocks=(grid,), vocab=self.vocab, dim=self.value_dim, prefix=prefix)

    def forward(self, latents: Latents, draws: Draws | None = None) -> Quantized:
        """[B, N, D] latents -> values, indices, queries, losses; computed in fp32.

        `draws.ranks` replaces codes by their r-th nearest (latent perturbation): `values` then
        carries the perturbed codes, `clean` and `indices` do not.
        """
        draws = draws or Draws()
        with torch.autocast(latents.values.device.type, enabled=False):
            result = self.quantize(latents.values.float(), draws)
            if draws.ranks is None:
                return result
            indices = self.perturb(result.queries, draws.ranks, draws.top_rank)
            moved = (draws.ranks > 0).any(-1, keepdim=True)  # [B, L, 1]
            # The gradient goes on to the latents and never to the codebook (RobusTok).
            values = torch.where(
                moved, straight_through(self.lookup(indices), result.values), result.values
            )
        return Quantized(values, result.clean, result.indices, result.queries, result.losses)

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a training step; nothing unless the quantizer is stochastic."""
        return Draws()

    def quantize(self, z: Tensor, draws: Draws) -> Quantized:
        """z [B, N, latent_dim] fp32 -> Quantized without perturbation."""
        raise NotImplementedError

    def lookup(self, indices: Tensor) -> Tensor:
        """indices [B, L, F] -> values [B, L, value_dim] fp32: exactly what `forward` gives."""
        raise NotImplementedError

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        """queries [B, L, P, d] -> indices [B, L, P, count, F/P]: the nearest codes, best first.

        Order is by the quantizer's own score; ties go to the lower index. `count` is clipped to
        the number of codes.
        """
        raise NotImplementedError

    def perturb(self, queries: Tensor, ranks: Tensor, top: int | None = None) -> Tensor:
        """ranks [B, L, P] -> indices [B, L, F] of the r-th nearest codes (0 = the clean one).

        Args:
            top: no rank is larger; None asks the ranks, which a GPU has to finish its work for.
        """
        top = int(ranks.max()) if top is None else top
        with torch.autocast(queries.device.type, enabled=False):
            near = self.neighbours(queries, top + 1)
        return pick_rank(near, ranks)

    def remember(self, quantized: Quantized) -> None:
        """Keep of a forward pass of training what `after_step` wants whole (latents to revive codes
        with). Called beside `forward`, not by it: what grows from one micro-batch to the next would
        be compiled anew for each."""

    @torch.no_grad()
    def initialize(self, z: Tensor, rng: Rng) -> None:
        """Set the codebook from latents [n, latent_dim] of the global batch, if it wants data."""

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        """Update running statistics once an optimizer step; what happened, to be logged: scalars,
        which stay on the device."""
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
