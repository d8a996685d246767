"""A decoder-only transformer over tokens (Llama-style; LlamaGen, arXiv 2406.06525).

Condition tokens, then the positions in order. Places are known to attention alone (rotary), or by a
table. Text may be read inside the blocks, of a layer of a language model each.
Letters: L positions, W width, C condition tokens, R rows, n slots, A axes of a grid.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.captions import SeenText
from vistok.generators.sequential import (
    SequentialConfig,
    SequentialGenerator,
    SequentialSampling,
)
from vistok.layers.dropout import Dropout
from vistok.layers.masks import causal_behind, with_more
from vistok.layers.positions import grid_positions, rotary_table, rows_from
from vistok.layers.text_transformer import LayerText, TextTransformer
from vistok.layers.transformer import Transformer, TransformerConfig
from vistok.tokens import TokenSpec


class AutoregressiveSampling(SequentialSampling):
    """Sampling settings of the autoregressive generator."""


class AutoregressiveConfig(SequentialConfig):
    kind: Literal["autoregressive"] = "autoregressive"
    transformer: TransformerConfig = TransformerConfig(
        norm="rmsnorm", mlp="swiglu", mlp_ratio=8 / 3, bias=False
    )
    positions: Literal["rope", "learned", "per_block"] = "rope"
    """rope: rotary by the place in the sequence (on the grid, if the tokens are one 2D grid);
    learned: a table; per_block: a table of each block, added behind its first norm
    (Instella-T2I)."""
    condition_positions: Literal["before", "zero"] = "before"
    """Rotary positions of the condition's tokens. before: -1, -2, ... from the first code backward;
    zero: none, and their rows of the table are zero instead, so that queries and keys of these
    tokens vanish, and all look at them evenly (LlamaGen's weights depend on it)."""
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    """Base of the rotary frequencies."""
    token_dropout: float | None = Field(default=None, ge=0, lt=1)
    """Share of activations of the transformer's input that training drops, keyed by sample; null =
    transformer.dropout."""
    sampling: AutoregressiveSampling = AutoregressiveSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> AutoregressiveConfig:
        return cls(transformer=TransformerConfig.tiny())


@register("generator", AutoregressiveConfig)
class Autoregressive(SequentialGenerator):
    """Predicts each position from the condition and the positions before it."""

    masks_text = True

    def __init__(
        self, config: AutoregressiveConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec, codes)
        width, first = config.transformer.width, self.condition.count
        own = config.token_dropout
        self.dropout = Dropout(config.transformer.dropout if own is None else own)
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(first + spec.length, width) * 0.02)
        elif config.positions == "rope":
            head_dim = width // config.transformer.heads
            cos, sin = rotary_table(_positions(spec, first), head_dim, config.rope_base)
            if config.condition_positions == "zero":
                cos[:first], sin[:first] = 0.0, 0.0
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.initialize()

    def make_trunk(self) -> nn.Module:
        config, text = self.config, self.config.condition.text
        rows = None
        if config.positions == "per_block":
            rows = self.condition.count + self.spec.length
        if rows is None and self.texts is None:
            return Transformer(config.trunk)
        if text is not None and text.mask:
            raise InputError(
                f"condition.text.mask=true with positions={config.positions}: its blocks hide no "
                "slots; expected positions=rope or learned"
            )
        reads = {} if self.texts is None else {"text": text.dim, "layers": text.layers}
        return TextTransformer(config.trunk, rows, **{"text": None, **reads})

    def first_rotary(self, count: int) -> tuple[Tensor, Tensor] | None:
        if self.config.positions != "rope":
            return None
        return self.rotary_cos[:count], self.rotary_sin[:count]

    def start(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """The condition's tokens [B, C, W]."""
        return self.condition(condition, batch, null)

    def run(
        self,
        x: Tensor,
        first: int | Tensor,
        start: Tensor,
        caches: list | None = None,
        text: LayerText | None = None,
        seen: SeenText | None = None,
    ) -> Tensor:
        """Hidden states [R, n, W] of the slots first.. of a sequence.

        Args:
            seen: which slots in front may be looked at; None = all.
        """
        rotary, count = None, x.shape[1]
        if self.config.positions == "learned":
            x = x + rows_from(self.position_table, first, count).to(x.dtype)
        elif self.config.positions == "rope":
            tables = (self.rotary_cos, self.rotary_sin)
            rotary = tuple(rows_from(table, first, count) for table in tables)
            if isinstance(first, Tensor):  # the same for all heads
                rotary = tuple(table[:, None] for table in rotary)
        given = {"rotary": rotary, "causal": True, "caches": caches}
        if seen is not None:
            given |= _masked(seen.mask, first, count, caches)
        if isinstance(self.transformer, TextTransformer):
            given |= {"first": first, "text": text}
        return self.transformer(self.dropout(x), **given)


def _masked(seen: Tensor, first: int | Tensor, count: int, caches: list | None) -> dict[str, Any]:
    """Arguments of the transformer that hide slots in front.

    Args:
        seen: [R, S] bool. first, count: of the slots that ask.
    """
    if not isinstance(first, Tensor) and first < seen.shape[1]:
        return {"causal": False, "mask": causal_behind(seen, first, first + count)}
    keys = first + count if caches is None else caches[0].after(count)
    return {"mask": with_more(seen, keys)[:, None, None]}


def _positions(spec: TokenSpec, first: int) -> Tensor:
    """[C + L, A]: the last condition token at 0, those before it at -1, -2, ...; the tokens in
    their order or on their grid from 1."""
    if len(spec.blocks) == 1 and len(spec.blocks[0]) == 2:
        cells = grid_positions(spec.blocks[0]) + 1
    else:
        cells = torch.arange(1, spec.length + 1).float()[:, None]
    before = torch.arange(1 - first, 1).float()[:, None]
    return torch.cat([before.expand(first, cells.shape[1]), cells])
