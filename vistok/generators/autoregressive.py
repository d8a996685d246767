"""A decoder-only transformer over tokens (Llama-style; LlamaGen, arXiv 2406.06525).

Condition tokens, then the positions in order; position i is predicted from those before it.
Built from a TokenSpec alone: any vocabulary (one softmax, factors, bits), any prefix length.
Letters: B batch, L positions, F factors, W width, C condition tokens, R rows (guidance doubles B).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.generators.base import Generator, GeneratorConfig, SavedCodes
from vistok.generators.conditioning import ConditionTokens
from vistok.generators.embedding import BitEmbedding, CodeEmbedding, EmbedKind, FactorEmbedding
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.generators.heads import HeadKind, check_head, choose_head, make_head
from vistok.generators.sampling import ChoiceConfig, choose
from vistok.layers.dropout import Dropout
from vistok.layers.positions import grid_positions, rotary_table
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.tokens import Tokens, TokenSpec


class AutoregressiveSampling(ChoiceConfig, GuidanceConfig):
    """Sampling settings of the autoregressive generator."""

    cache: bool = True
    """Keep keys and values of past positions; false runs the whole sequence at every step."""


class AutoregressiveConfig(GeneratorConfig):
    kind: Literal["autoregressive"] = "autoregressive"
    transformer: TransformerConfig = TransformerConfig(
        norm="rmsnorm", mlp="swiglu", mlp_ratio=8 / 3, bias=False
    )
    positions: Literal["rope", "learned"] = "rope"
    """rope: rotary by the place in the sequence (on the grid, if the tokens are one 2D grid);
    learned: a table."""
    head: HeadKind | None = None
    """Prediction of a position's factors. null: joint for one factor, bernoulli for bits, causal
    for other factors."""
    embed: EmbedKind = "learned"
    """Embeddings of tokens. learned: a table per factor (a linear map of bits); codes: the
    tokenizer's code vectors, frozen, through a linear map; codes_init: trained from there."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""
    sampling: AutoregressiveSampling = AutoregressiveSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> AutoregressiveConfig:
        return cls(transformer=TransformerConfig.tiny())

    @property
    def wants_codes(self) -> bool:
        return self.embed != "learned"


@register("generator", AutoregressiveConfig)
class Autoregressive(Generator):
    """Predicts each position from the condition and the positions before it."""

    metrics = ("nll", "bits_per_image")
    judged_by = ("nll", -1)
    takes_known = True

    def __init__(
        self, config: AutoregressiveConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        if not spec.vocab:
            raise InputError(
                "kind=autoregressive models discrete tokens; these are continuous (vocab=())"
            )
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        width, vocab = config.transformer.width, self.inner.vocab
        self.head_kind = config.head or choose_head(vocab)
        check_head(self.head_kind, vocab)  # before tables as wide as a factor are made
        self.condition = ConditionTokens(config.condition, width)
        self.embed = self._embedding(codes)
        self.transformer = Transformer(config.transformer)
        self.dropout = Dropout(config.transformer.dropout)
        first = self.condition.count
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(first + spec.length, width) * 0.02)
        else:
            head_dim = width // config.transformer.heads
            cos, sin = rotary_table(_positions(spec, first), head_dim)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        init_weights(self, config.transformer)
        for layer in self.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        # After the loop above: heads start from zero, so the first loss is log V exactly.
        self.head = make_head(self.head_kind, width, vocab)

    # -- training -------------------------------------------------------------------------------

    def nats(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Negative log-likelihood [B, L] of each position; 0 behind the prefix of cut tokens."""
        indices = self._regrouped(tokens).indices.long()
        null = None if draws is None else draws.null
        start = self.condition(condition, len(indices), null)
        x = torch.cat([start, self.embed(indices[:, :-1])], dim=1)
        hidden = self._run(x, 0)[:, start.shape[1] - 1 :]
        nats = self.head(hidden, indices)
        return nats if tokens.keep is None else nats * tokens.kept()

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: nats per position; bits_per_image: length of an arithmetic code."""
        nats = self.nats(tokens, condition, draws)
        bits = nats.detach().sum(-1).mean() / math.log(2)
        return {"loss": nats.mean(), "bits_per_image": bits}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """nll: nats per position; bits_per_image: length of an arithmetic code."""
        nats = self.nats(tokens, condition)
        total = float(nats.double().sum())
        return {
            "nll": (total, nats.numel()),
            "bits_per_image": (total / math.log(2), len(nats)),
        }

    # -- sampling -------------------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        # A cut inside each block is no prefix of the sequence.
        return self.spec.prefix in ("token", "block")

    def check_settings(self, settings: AutoregressiveSampling) -> None:
        if self.head_kind == "bernoulli" and (settings.top_k or settings.top_p < 1):
            raise InputError("top_k and top_p have no meaning for independent bits; leave them out")

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        spec, factors, samples = self.spec, len(self.inner.vocab), len(index)
        x = self.condition(condition, samples)
        if settings.guided:
            x = torch.cat([x, self.condition(Condition(), samples)])
        u = Rng(seed, "sampling").uniform(index, (spec.length, factors)).to(x.device)
        chosen = torch.zeros(samples, spec.length, factors, dtype=torch.long, device=x.device)
        known = None if condition.known is None else self._regrouped(condition.known).indices.long()
        first = x.shape[1] - 1  # place of the token that position 0 is predicted from
        caches = None
        if settings.cache:
            caches = self.transformer.new_caches(len(x), first + positions, x)
        new, sequence = x, x
        for i in range(positions):
            if settings.cache:
                hidden = self._run(new, first + i if i else 0, caches)
            else:
                hidden = self._run(sequence, 0)
            scale = settings.scale_at(i / spec.length)

            def pick(logits: Tensor, f: int, i: int = i, scale: float = scale) -> Tensor:
                return choose(guide(logits, scale, samples), u[:, i, f], settings)

            codes = self.head.sample(hidden[:, -1], pick)
            if known is not None:
                codes = torch.where(condition.known_mask[:, i, None], known[:, i], codes)
            chosen[:, i] = codes
            new = self.embed(chosen[:, i : i + 1]).repeat(len(x) // samples, 1, 1)
            sequence = sequence if settings.cache else torch.cat([sequence, new], dim=1)
        tokens = Tokens(self.inner, indices=chosen.to(Tokens.dtype(self.inner)))
        if self.config.regroup is not None:
            tokens = tokens.regroup(spec.vocab)
        return Tokens(spec, indices=tokens.indices)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {
            **super().summary(),
            "vocabulary": " x ".join(map(str, self.inner.vocab)),
            "head": self.head_kind,
        }

    def _embedding(self, codes: nn.Module | None) -> nn.Module:
        config, vocab, width = self.config, self.inner.vocab, self.config.transformer.width
        if not config.wants_codes:
            bits = self.head_kind == "bernoulli"
            return BitEmbedding(len(vocab), width) if bits else FactorEmbedding(vocab, width)
        if codes is None:
            raise InputError(
                f"embed={config.embed} needs the tokenizer's code vectors; give "
                "codes=tokenizer.quantizer"
            )
        embed = CodeEmbedding(vocab, self.spec.dim, width, frozen=config.embed == "codes")
        if not isinstance(codes, SavedCodes):
            embed.fill(codes, self.spec.vocab)
        return embed

    def _run(self, x: Tensor, first: int, caches: list | None = None) -> Tensor:
        """x [R, n, W] at places first.. of the sequence -> hidden states [R, n, W]."""
        stop, rotary = first + x.shape[1], None
        if self.config.positions == "learned":
            x = x + self.position_table[first:stop].to(x.dtype)
        else:
            rotary = (self.rotary_cos[first:stop], self.rotary_sin[first:stop])
        return self.transformer(self.dropout(x), rotary, causal=True, caches=caches)

    def _regrouped(self, tokens: Tokens) -> Tokens:
        if tokens.spec.vocab == self.inner.vocab:
            return tokens
        return tokens.regroup(self.inner.vocab)


def _positions(spec: TokenSpec, first: int) -> Tensor:
    """[C + L, A]: the last condition token at 0, those before it at -1, -2, ...; the tokens in
    their order or on their grid from 1."""
    if len(spec.blocks) == 1 and len(spec.blocks[0]) == 2:
        cells = grid_positions(spec.blocks[0]) + 1
    else:
        cells = torch.arange(1, spec.length + 1).float()[:, None]
    before = torch.arange(1 - first, 1).float()[:, None]
    return torch.cat([before.expand(first, cells.shape[1]), cells])
