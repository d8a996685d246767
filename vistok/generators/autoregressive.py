"""A decoder-only transformer over tokens (Llama-style; LlamaGen, arXiv 2406.06525).

Condition tokens, then the positions in order. Places are known to attention alone (rotary), or by a
table. Text may be read inside the blocks, of a layer of a language model each.
Letters: L positions, W width, C condition tokens, R rows, n slots, A axes of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.captions import SeenText
from vistok.generators.known_codes import known_codes
from vistok.generators.sequential import (
    SequentialConfig,
    SequentialGenerator,
    SequentialSampling,
)
from vistok.generators.windows import (
    WindowEmbedding,
    WindowHead,
    cannot_merge,
    windows_of,
)
from vistok.layers.dropout import Dropout
from vistok.layers.masks import causal_behind, with_more
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.positions import grid_positions, rotary_table, rows_from, sequence_sincos
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
    positions: Literal["rope", "learned", "sincos", "per_block"] = "rope"
    """rope: rotary by the place in the sequence (on the grid, if the tokens are one 2D grid);
    learned: a table; sincos: a fixed one; per_block: a table of each block, added behind its first
    norm (Instella-T2I)."""
    position_dropout: bool = True
    """Dropout of the transformer's input reaches the table of positions; false: they are added
    behind it (LARP)."""
    condition_positions: Literal["before", "zero"] = "before"
    """Rotary positions of the condition's tokens. before: -1, -2, ... from the first code backward;
    zero: none, and their rows of the table are zero instead, so that queries and keys of these
    tokens vanish, and all look at them evenly (LlamaGen's weights depend on it)."""
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    """Base of the rotary frequencies."""
    token_dropout: float | None = Field(default=None, ge=0, lt=1)
    """Share of activations of the transformer's input that training drops, keyed by sample; null =
    transformer.dropout."""
    window: int = Field(default=1, ge=1, le=64)
    """Side of the windows of a 2D grid whose codes share a position of the transformer and are
    predicted at once, each independent of the others (Token-Shuffle); 1 = a position per code."""
    window_blocks: int = Field(default=2, ge=0, le=64)
    """Residual feed-forward blocks before the transformer, and behind it, with window of 2 or
    more."""
    modulated: bool = False
    """The condition's token also scales, shifts and gates both branches of every block, and scales
    and shifts the last norm (adaLN; IBQ's generator)."""
    gate_gain: float | None = Field(default=None, ge=0, le=1)
    """Start of modulated blocks. null: modulated by nothing (adaLN-Zero); a number: layers of
    scales and shifts with half of `transformer.init_std`, those of gates with this share of it."""
    sampling: AutoregressiveSampling = AutoregressiveSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> AutoregressiveConfig:
        return cls(transformer=TransformerConfig.tiny())

    @model_validator(mode="after")
    def _shares_width(self) -> AutoregressiveConfig:
        if self.transformer.width % self.window**2:
            raise InputError(
                f"window={self.window} with transformer.width={self.transformer.width}: its "
                f"{self.window**2} codes share the width evenly; expected a multiple of that"
            )
        return self

    @model_validator(mode="after")
    def _modulated(self) -> AutoregressiveConfig:
        if self.transformer.modulation is not None:
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: the condition's token "
                "modulates, whose width is that of the transformer; use modulated=true instead"
            )
        if self.modulated and self.condition.text is not None:
            raise InputError(
                "modulated=true with condition.text: one token modulates, and a text has many; "
                "leave one out"
            )
        return self

    @property
    def trunk(self) -> TransformerConfig:
        width = self.transformer.width if self.modulated else None
        return self.transformer.model_copy(update={"modulation": width})

    @model_validator(mode="after")
    def _can_continue(self) -> AutoregressiveConfig:
        if self.condition.first_frames is None:
            return self
        text = self.condition.text
        for name, wrong in {
            f"window={self.window}": self.window > 1,
            "condition.text.mask=true": text is not None and text.mask,
        }.items():
            if wrong:
                raise InputError(
                    f"{name} with condition.first_frames={self.condition.first_frames}: not "
                    "possible together; leave one out"
                )
        return self


@register("generator", AutoregressiveConfig)
class Autoregressive(SequentialGenerator):
    """Predicts each position from the condition and the positions before it."""

    masks_text = True
    continues_frames = True

    def __init__(
        self, config: AutoregressiveConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec, codes)
        width, first = config.transformer.width, self.front
        windows = None if config.window == 1 else windows_of(spec.blocks[0], config.window)
        self.register_buffer("windows", windows, persistent=False)
        if windows is not None:
            merge = (config.transformer, config.window, config.window_blocks)
            self.embed = WindowEmbedding(self.embed, *merge)
        own = config.token_dropout
        self.dropout = Dropout(config.transformer.dropout if own is None else own)
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(first + self.places, width) * 0.02)
        elif config.positions == "sincos":
            # Kept with the weights: how it is rounded differs between libraries.
            self.register_buffer("position_table", sequence_sincos(first + self.places, width))
        elif config.positions == "rope":
            head_dim = width // config.transformer.heads
            cos, sin = rotary_table(self._positions(first), head_dim, config.rope_base)
            if config.condition_positions == "zero":
                cos[:first], sin[:first] = 0.0, 0.0
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.modulation_head = Modulation(width, width, 2) if config.modulated else None
        self.initialize()
        if config.modulated and config.gate_gain is not None:
            for layer in self.modules():
                if isinstance(layer, Modulation):
                    nn.init.normal_(layer.proj.weight, std=config.transformer.init_std)
                    layer.damp(config.gate_gain)

    @classmethod
    def unable(cls, config: AutoregressiveConfig, spec: TokenSpec) -> str | None:
        reason = super().unable(config, spec)
        return cannot_merge(spec, config.window) if reason is None and config.window > 1 else reason

    @property
    def front(self) -> int:
        """Slots in front of the codes: tokens of known frames, then those of the condition."""
        known = self.config.condition.first_frames is not None
        return self.condition.count + (self.spec.length if known else 0)

    @property
    def places(self) -> int:
        """Positions of the transformer behind the condition: codes, or windows of them."""
        return self.spec.length // self.config.window**2

    def make_trunk(self) -> nn.Module:
        config, text = self.config, self.config.condition.text
        rows = None
        if config.positions == "per_block":
            rows = self.front + self.places
        if rows is None and self.texts is None:
            return Transformer(config.trunk)
        if text is not None and text.mask:
            raise InputError(
                f"condition.text.mask=true with positions={config.positions}: its blocks hide no "
                "slots; expected positions=rope or learned"
            )
        reads = {} if self.texts is None else {"text": text.dim, "layers": text.layers}
        return TextTransformer(config.trunk, rows, **{"text": None, **reads})

    def new_head(self, bias: bool) -> nn.Module:
        head, config = super().new_head(bias), self.config
        if self.windows is None:
            return head
        return WindowHead(head, config.transformer, config.window, config.window_blocks)

    def first_rotary(self, count: int) -> tuple[Tensor, Tensor] | None:
        if self.config.positions != "rope":
            return None
        return self.rotary_cos[:count], self.rotary_sin[:count]

    def start(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """The condition's tokens [B, C, W]; with known frames [B, L + C, W], theirs in front."""
        tokens = self.condition(condition, batch, null)
        if self.config.condition.first_frames is None:
            return tokens
        return torch.cat([self.embed(known_codes(self, condition, batch)), tokens], dim=1)

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
        if not self.config.position_dropout:
            x = self.dropout(x)
        if self.config.positions in ("learned", "sincos"):
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
        if self.modulation_head is not None:
            given["vector"] = start[:, -1]
        x = self.transformer(self.dropout(x) if self.config.position_dropout else x, **given)
        if self.modulation_head is None:
            return x
        return modulate(x, *self.modulation_head(start[:, -1]))

    # -- windows --------------------------------------------------------------------------------

    def nats_of(
        self, indices: Tensor, condition: Condition, null: Tensor | None, **given: Tensor
    ) -> Tensor:
        if self.windows is None:
            return super().nats_of(indices, condition, null, **given)
        order = self.windows.flatten()
        nats = super().nats_of(indices[:, order], condition, null, **given)
        return torch.empty_like(nats).index_copy(1, order, nats)

    def check_settings(self, settings: AutoregressiveSampling) -> None:
        super().check_settings(settings)
        if self.windows is not None and settings.jacobi is not None:
            raise InputError(
                f"sampling.jacobi with window={self.config.window}: Jacobi passes draft single "
                "codes, and here a window of them is predicted at once; leave one out"
            )

    def codes_before_last(self, indices: Tensor) -> Tensor:
        return indices[:, : -(self.config.window**2)]

    def steps(self, positions: int) -> Sequence[slice | Tensor]:
        return super().steps(positions) if self.windows is None else list(self.windows)

    def predicted(self, hidden: Tensor) -> tuple[nn.Module, Tensor]:
        if self.windows is None:
            return super().predicted(hidden)
        return self.head.codes, self.head.split(hidden)

    def _positions(self, first: int) -> Tensor:
        """[C + N, A]: the last condition token at 0, those before it at -1, -2, ...; the codes, or
        windows of them, in their order or on their grid from 1."""
        grid, side = self.spec.blocks[0], self.config.window
        if len(self.spec.blocks) == 1 and len(grid) == 2:
            cells = grid_positions(tuple(length // side for length in grid)) + 1
        else:
            cells = torch.arange(1, self.spec.length + 1).float()[:, None]
        before = torch.arange(1 - first, 1).float()[:, None]
        return torch.cat([before.expand(first, cells.shape[1]), cells])


def _masked(seen: Tensor, first: int | Tensor, count: int, caches: list | None) -> dict[str, Any]:
    """Arguments of the transformer that hide slots in front.

    Args:
        seen: [R, S] bool. first, count: of the slots that ask.
    """
    if not isinstance(first, Tensor) and first < seen.shape[1]:
        return {"causal": False, "mask": causal_behind(seen, first, first + count)}
    keys = first + count if caches is None else caches[0].after(count)
    return {"mask": with_more(seen, keys)[:, None, None]}
