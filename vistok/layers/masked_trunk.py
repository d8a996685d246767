"""An encoder that sees the visible positions alone, and a decoder that sees all of them (MAE, arXiv
2111.06377, as MAR, arXiv 2406.11838, has it for generation).

Masked positions never enter the encoder; the decoder has a learned token in their place. Slots in
front, which hold the condition, are always visible. How many positions are visible differs from
sample to sample: each has the same room for them, and attention hides what a sample leaves empty.
Letters: B batch, S slots in front, L positions, K room for visible positions, W and D widths of
encoder and decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.layers.masks import joined
from vistok.layers.norms import make_norm
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


class MaskedTrunk(nn.Module):
    """Features [B, L, D] of all positions, of embeddings [B, S + L, W] of which some are masked.

    Args:
        slots: S. length: L. norm_eps: of the norm behind the embeddings and their positions.
    """

    def __init__(
        self,
        encoder: TransformerConfig,
        decoder: TransformerConfig,
        slots: int,
        length: int,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.slots = slots
        table = lambda rows, width: nn.Parameter(torch.randn(rows, width) * 0.02)
        self.positions_encoder = table(slots + length, encoder.width)
        self.norm_in = make_norm(encoder.norm, encoder.width, norm_eps)
        self.encoder = Transformer(encoder)
        self.project = nn.Linear(encoder.width, decoder.width)
        self.mask_token = table(1, decoder.width)
        self.positions_decoder = table(slots + length, decoder.width)
        self.decoder = Transformer(decoder)
        self.positions_out = table(length, decoder.width)
        for part, config in (
            (self.encoder, encoder),
            (self.project, encoder),
            (self.decoder, decoder),
        ):
            init_weights(part, config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        room: int | None = None,
        even: bool = False,
        seen: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            x: [B, S + L, W]; what stands at masked positions does not matter.
            mask: [B, L] bool, True = masked.
            room: K, no sample has more visible positions; None = L.
            even: every sample has exactly K of them, so that attention needs no mask.
            seen: [B, L] bool, positions that exist; None = all.
        """
        if seen is not None:
            mask = mask | ~seen
        return self.decode(self.encode(x, mask, room, even), mask, seen)

    def encode(
        self, x: Tensor, mask: Tensor, room: int | None = None, even: bool = False
    ) -> Tensor:
        """[B, S + K, W]: the slots, then the visible positions from first to last; what stands
        behind them where a sample has fewer than K means nothing."""
        room, count = mask.shape[1] if room is None else room, self.slots
        x = self.norm_in(x + self.positions_encoder.to(x.dtype))
        places = _visible_first(mask)[:, :room]
        visible = x[:, count:].gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
        there = room if even else ~mask.gather(1, places)
        hides = joined(count, there, batch=len(x), device=x.device)
        return self.encoder(torch.cat([x[:, :count], visible], dim=1), mask=hides)

    def decode(self, x: Tensor, mask: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features [B, L, D] of what `encode` gave [B, S + K, W]."""
        x, count = self.project(x), self.slots
        token = self.mask_token.to(x.dtype)
        # One more row, so that there is something to read where no position is visible.
        visible = torch.cat([x[:, count:], token.expand(len(x), 1, -1)], dim=1)
        rank = _visible_first(mask).argsort(dim=1).clamp(max=visible.shape[1] - 1)
        y = visible.gather(1, rank[..., None].expand(-1, -1, x.shape[-1]))
        y = torch.where(mask[..., None], token, y)
        y = torch.cat([x[:, :count], y], dim=1) + self.positions_decoder.to(x.dtype)
        hides = None if seen is None else joined(count, seen, batch=len(y), device=y.device)
        return self.decoder(y, mask=hides)[:, count:] + self.positions_out.to(x.dtype)


def _visible_first(mask: Tensor) -> Tensor:
    """[B, L] places: those that are not masked from first to last, then the others."""
    return mask.to(torch.uint8).argsort(dim=1, stable=True)
