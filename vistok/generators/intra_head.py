"""Prediction of a position's factors by a small causal transformer over them.

Each position has a sequence of its own: its hidden state, then the embeddings of its factors but
the last; step f predicts factor f, from the hidden state and the factors before f. So are the two
sub-tokens of 2**18 codes predicted by Open-MAGVIT2 (arXiv 2409.04410, section 3.2).
Letters: B batch, L positions, W width, F factors, V vocabulary of a factor, R rows.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, validate
from vistok.core.errors import InputError
from vistok.generators.embedding import FactorEmbedding
from vistok.generators.heads import Pick
from vistok.layers.positions import rotary_table
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights

Rotary = tuple[Tensor, Tensor]


class IntraConfig(Config):
    """Transformer over the factors of a position; norms, feed-forward layers and dropout are those
    of the generator's transformer."""

    depth: int = Field(default=2, ge=1, le=64)
    """Blocks."""
    width: int | None = Field(default=None, ge=2, le=2**14)
    """Channels; null = those of the generator's transformer. Another width adds a linear layer in
    front."""
    heads: int | None = Field(default=None, ge=1, le=512)
    """Heads of attention; null = as the generator's transformer."""
    embed: Literal["shared", "own"] = "shared"
    """Embeddings of earlier factors. shared: the tables that the generator reads its tokens with
    (needs embed=learned); own: tables of the head."""
    positions: Literal["rope", "shared_rope", "learned"] = "rope"
    """Places of the factors. rope: rotary by their number; shared_rope: the first rows of the
    generator's own rotary table, whatever they hold (Open-MAGVIT2: those of the class and of the
    first token); learned: a table."""
    context_norm: bool = True
    """The hidden state is normalized before it enters; false: Open-MAGVIT2, whose only final norm
    is that behind the factors."""


class IntraHead(nn.Module):
    """A transformer over [hidden state, factors 0..F-2], a final norm, a linear layer for each."""

    def __init__(
        self,
        config: IntraConfig,
        trunk: TransformerConfig,
        vocab: tuple[int, ...],
        embed: nn.Module,
        rotary: Rotary | None = None,
        bias: bool = False,
    ) -> None:
        """
        Args:
            trunk: of the generator, W wide. embed: its embedding of tokens.
            rotary: cos and sin [n, d / 2] of its first slots, for positions=shared_rope.
            bias: of the last layers.
        """
        super().__init__()
        self.vocab, wide = vocab, trunk.width
        changes = {"depth": config.depth, "modulation": None}
        changes |= {k: v for k in ("width", "heads") if (v := getattr(config, k)) is not None}
        own = validate(TransformerConfig, trunk.model_dump() | changes, "intra")
        self.project = nn.Identity() if own.width == wide else nn.Linear(wide, own.width)
        if config.embed == "own":
            self.embed = nn.ModuleList(nn.Embedding(size, own.width) for size in vocab[:-1])
        elif not isinstance(embed, FactorEmbedding):
            raise InputError(
                "intra.embed=shared: the tokens are not read by a table per factor; use "
                "embed=learned, or intra.embed=own"
            )
        # In a tuple, so that the generator's tables are not saved a second time.
        self.shared = (embed,) if config.embed == "shared" else ()
        self.transformer = Transformer(own)
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(len(vocab), own.width) * 0.02)
        else:
            head_dim = own.width // own.heads
            cos, sin = _rows(config, len(vocab), head_dim, rotary)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        init_weights(self, own)
        for layer in self.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        self.out = nn.ModuleList(nn.Linear(own.width, size, bias=bias) for size in vocab)
        for layer in self.out:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """hidden [B, L, W], indices [B, L, F] -> nats [B, L]."""
        total = 0.0
        for f, logits in enumerate(self.logits(hidden, indices)):
            target = indices[..., f]
            nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
            total = total + nats.view_as(target)
        return total

    def logits(self, hidden: Tensor, indices: Tensor) -> list[Tensor]:
        """fp32 logits [B, L, V] of each factor, given the true factors before it."""
        steps = [self.project(hidden)]
        steps += [self._embedded(indices[..., f], f) for f in range(len(self.vocab) - 1)]
        x = torch.stack(steps, dim=-2)  # [B, L, F, W]
        x = self._run(x.flatten(0, 1), 0).view(x.shape)
        return [out(x[..., f, :]).float() for f, out in enumerate(self.out)]

    def sample(self, hidden: Tensor, pick: Pick) -> Tensor:
        """hidden [R, W] -> [B, F]."""
        chosen, x = [], self.project(hidden)
        caches = self.transformer.new_caches(len(x), len(self.vocab), x)
        for f, out in enumerate(self.out):
            step = self._run(x[:, None], f, caches)[:, 0]
            chosen.append(pick(out(step).float(), f))
            if f < len(self.vocab) - 1:
                # Guidance runs two rows per sample; both continue with the same code.
                copies = len(hidden) // len(chosen[-1])
                x = self._embedded(chosen[-1], f).repeat(copies, 1)
        return torch.stack(chosen, dim=-1)

    def _embedded(self, codes: Tensor, f: int) -> Tensor:
        if not self.shared:
            return self.embed[f](codes)
        return self.project(self.shared[0][f](codes))

    def _run(self, x: Tensor, first: int, caches: list | None = None) -> Tensor:
        """x [R, n, W] of the steps first.. -> the same, through the transformer."""
        stop, rotary = first + x.shape[1], None
        if hasattr(self, "position_table"):
            x = x + self.position_table[first:stop].to(x.dtype)
        else:
            rotary = (self.rotary_cos[first:stop], self.rotary_sin[first:stop])
        return self.transformer(x, rotary, causal=True, caches=caches)


def _rows(config: IntraConfig, factors: int, head_dim: int, rotary: Rotary | None) -> Rotary:
    """cos and sin [F, d / 2] of the steps."""
    if config.positions == "rope":
        return rotary_table(torch.arange(factors).float()[:, None], head_dim)
    if rotary is None:
        raise InputError(
            "intra.positions=shared_rope: this generator has no rotary table; use positions=rope "
            "of kind=autoregressive, or intra.positions=rope"
        )
    rows, pairs = rotary[0].shape
    if rows < factors or 2 * pairs != head_dim:
        raise InputError(
            f"intra.positions=shared_rope: the generator's table is {rows} x {pairs}; expected "
            f"{factors} rows or more, of {head_dim // 2} for {head_dim} channels of a head: use "
            "intra.positions=rope"
        )
    return tuple(table[:factors].clone() for table in rotary)
