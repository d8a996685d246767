"""A transformer whose blocks read text, each from its own layer of a language model, and have their
own position tables (Instella-T2I, arXiv 2506.21022).

Only positions ask; keys and values are those of the text, in front, then of the positions. Text
enters a block through a linear map of the block, without a norm; a position table is added behind
the block's first norm. Both are options.
Letters: B batch, L positions, D width, K layers of text (1, or one for each block), M positions of
a text, C width of its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.core.selection import Record
from vistok.layers.attention import KVCache
from vistok.layers.modulation import modulate
from vistok.layers.norms import make_norm
from vistok.layers.positions import rows_from
from vistok.layers.transformer import Block, Transformer, TransformerConfig


@dataclass(frozen=True)
class LayerText(Record):
    """Text for the blocks of a transformer."""

    features: Tensor  # [B, K, M, C]
    mask: Tensor  # [B, M] bool: which positions are text

    @property
    def keys(self) -> int:
        """M, keys in front of the sequence's own."""
        return self.mask.shape[1]

    def join(self, other: LayerText) -> LayerText:
        """The rows of both, one behind the other."""
        pairs = (self.features, other.features), (self.mask, other.mask)
        return LayerText(*(torch.cat(pair) for pair in pairs))


class TextBlock(Block):
    """A block (perhaps modulated) with a position table and text as further keys and values."""

    def __init__(
        self, config: TransformerConfig, number: int, positions: int | None, text: int | None
    ) -> None:
        """
        Args:
            positions: rows of the table; None = no table. text: C; None = no text.
        """
        super().__init__(config, number)
        width = config.width
        self.positions = None if positions is None else nn.Parameter(torch.zeros(positions, width))
        self.text = None if text is None else nn.Linear(text, width)

    def forward(
        self,
        x: Tensor,
        first: int | Tensor = 0,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        """x [B, n, D], positions first.. of the table, or those [B, n] -> [B, n, D].

        Args:
            text: [B, M, C]. mask: [B, 1, 1, M + keys], of text and positions.
        """
        y, gate, gate_mlp = self.norm_attention(x), 1.0, 1.0
        if self.modulation is not None:
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(vector)
            y = modulate(y, shift, scale)
        if self.positions is not None:
            y = y + rows_from(self.positions, first, y.shape[1]).to(y.dtype)
        memory = None if text is None else self.text(text.to(self.text.weight.dtype))
        y = self.attention(y, rotary, mask, causal, cache, memory=memory)
        x = x + gate * self.skip_attention(self.dropout_attention(self.scale_attention(y)))
        y = self.norm_mlp(x)
        if self.modulation is not None:
            y = modulate(y, shift_mlp, scale_mlp)
        return x + gate_mlp * self.skip_mlp(self.dropout_mlp(self.scale_mlp(self.mlp(y))))


class TextTransformer(Transformer):
    """A stack of `TextBlock`s and a final norm; [B, L, D] -> [B, L, D].

    Args:
        positions: rows of each block's position table; None = no tables.
        text: C, width of the text's features; None = no text is read.
        layers: K, 1 or the number of blocks.
    """

    def __init__(
        self, config: TransformerConfig, positions: int | None, text: int | None, layers: int = 1
    ) -> None:
        nn.Module.__init__(self)  # blocks of another kind than the base class makes
        if layers not in (1, config.depth):
            raise InputError(
                f"text.layers={layers}: a transformer of depth={config.depth} reads a layer in "
                f"each block; expected {config.depth}, or 1 for the same features in all"
            )
        self.config, self.layers = config, layers
        blocks = (TextBlock(config, i, positions, text) for i in range(config.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = make_norm(config.norm, config.width, config.norm_eps, config.norm_affine)

    def forward(
        self,
        x: Tensor,
        first: int | Tensor = 0,
        text: LayerText | None = None,
        seen: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        causal: bool = False,
        caches: list[KVCache] | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        """x [B, n, D], positions first.. of the tables -> [B, n, D].

        Args:
            text: of the same rows; what is in the caches is not read again.
            seen: [B, n] bool, positions that may be looked at; None = all. Not with caches.
            vector: [B, D] that modulates, if the config has a modulation.
        """
        mask = None if seen is None else seen[:, None, None]
        cached = caches is not None and caches[0].length > 0
        if text is not None:
            own = x.shape[1]
            if cached:
                own = caches[0].after(own) - text.mask.shape[1]
            if seen is None:
                seen = torch.ones(1, own, dtype=torch.bool, device=x.device).expand(len(x), -1)
            mask = torch.cat([text.mask, seen], dim=1)[:, None, None]
        for i, block in enumerate(self.blocks):
            read = None
            if text is not None and not cached:
                read = text.features[:, i if self.layers > 1 else 0]
            cache = None if caches is None else caches[i]
            x = block(x, first, read, mask, rotary, causal, cache, vector)
        return self.norm(x)
