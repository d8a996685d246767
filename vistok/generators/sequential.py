"""Base of generators that predict one position after another with a causal transformer.

Slots in front of the sequence (its condition), then the positions in order; position i is predicted
from the slot before it. Built from a TokenSpec alone: any vocabulary (one softmax, factors, bits),
any prefix length. Kinds differ in their slots and in what a slot knows of its place.
Letters: B batch, L positions, F factors, W width, S slots in front, R rows (guidance doubles B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.generators.base import Generator, GeneratorConfig, SavedCodes
from vistok.generators.captions import SeenText, weighted_mean, with_text
from vistok.generators.conditioning import ConditionTokens, LayerTexts
from vistok.generators.decoding import Decoding
from vistok.generators.embedding import BitEmbedding, CodeEmbedding, EmbedKind, FactorEmbedding
from vistok.generators.factor_sampling import FactorSampling
from vistok.generators.guidance import guide
from vistok.generators.heads import (
    OF_BITS,
    HeadKind,
    check_choice,
    check_head,
    choose_head,
    make_head,
)
from vistok.generators.intra_head import IntraConfig, IntraHead
from vistok.generators.sampling import choose
from vistok.generators.speculative import JacobiConfig, decode
from vistok.layers.text_transformer import LayerText
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.runtime.precision import Precision, dtype_of
from vistok.tokens import Tokens, TokenSpec


class SequentialSampling(FactorSampling):
    """Sampling settings of generators that go from position to position."""

    cache: bool = True
    """Keep keys and values of past positions; false runs the whole sequence at every step."""
    fast: bool = True
    """With a cache: steps on weights that are packed once (CPUs), or as a captured graph (CUDA)."""
    precision: Precision | None = None
    """Precision of the network: fp32, bf16, or auto: bf16 where the hardware has it; null = as the
    weights are. Codes are chosen in fp32 or better."""
    jacobi: JacobiConfig | None = None
    """Speculative Jacobi decoding: a pass of the network predicts a window of positions, from
    drafts of them; fewer passes, the same distribution. null = one position in each pass."""


class SequentialConfig(GeneratorConfig):
    transformer: TransformerConfig
    head: HeadKind | None = None
    """Prediction of a position's factors. null: joint for one factor, bernoulli for bits, causal
    for other factors; bit_rounds: bits that see those of earlier rounds; intra: factor by factor,
    by a transformer over them (Open-MAGVIT2)."""
    head_rounds: int = Field(default=4, ge=1, le=64)
    """Rounds of head=bit_rounds: more see more of a token's other bits, and cost as much more."""
    intra: IntraConfig = IntraConfig()
    """The transformer of head=intra."""
    embed: EmbedKind = "learned"
    """Embeddings of tokens. learned: a table per factor (a linear map of bits); codes: the
    tokenizer's code vectors, frozen, through a linear map; codes_init: trained from there."""
    bit_values: Literal["signs", "bits"] = "signs"
    """Values of bits in a learned embedding: signs, -1 and 1; bits, 0 and 1 (Instella-T2I)."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""
    sampling: SequentialSampling = SequentialSampling()
    """Default settings of sampling; they are saved with the model."""

    @property
    def wants_codes(self) -> bool:
        return self.embed != "learned"

    @property
    def trunk(self) -> TransformerConfig:
        """The transformer with what its kind of generator adds to it."""
        return self.transformer


class SequentialGenerator(Generator):
    """Base class: embedding, condition, transformer, likelihood, and sampling with a KV cache.

    A subclass makes its tables of positions and calls `initialize`; it defines `start` and `run`.
    """

    metrics = ("nll", "bits_per_image")
    judged_by = ("nll", -1)
    takes_known = True
    passes: Tensor | None = None
    """[B] passes of the network that each sample of the last call of `sample` took; on the CPU."""

    def __init__(
        self, config: SequentialConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        width, vocab = config.transformer.width, self.inner.vocab
        self.head_kind = config.head or choose_head(vocab)
        check_head(self.head_kind, vocab)  # before tables as wide as a factor are made
        self.condition = ConditionTokens(config.condition, width)
        text = config.condition.text
        self.texts = None if text is None or text.layers is None else LayerTexts(text)
        self.embed = self._embedding(codes)
        self.transformer = self.make_trunk()

    def initialize(self, head_bias: bool = False) -> None:
        """Initialize the weights so far, then make the head; a subclass calls it last."""
        init_weights(self, self.config.transformer)
        for layer in self.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=self.config.transformer.init_std)
        # After the loop above: heads start from zero, so the first loss is log V exactly.
        self.head = self.new_head(head_bias)

    def new_head(self, bias: bool) -> nn.Module:
        """The head of the transformer's states; a kind that reads several of them makes others."""
        config, vocab = self.config, self.inner.vocab
        if self.head_kind == "intra":
            intra, rotary = config.intra, self.first_rotary(len(vocab))
            if not intra.context_norm:
                self.transformer.norm = nn.Identity()
            return IntraHead(intra, config.transformer, vocab, self.embed, rotary, bias)
        width, rounds = config.transformer.width, config.head_rounds
        return make_head(self.head_kind, width, vocab, bias, rounds)

    # -- the network ----------------------------------------------------------------------------

    def make_trunk(self) -> nn.Module:
        """The transformer; a kind whose blocks read text, or hold tables, makes another."""
        if self.texts is not None:
            raise InputError(
                f"kind={self.config.kind} reads text in front of its tokens alone; leave out "
                "condition.text.layers, or use kind=autoregressive"
            )
        return Transformer(self.config.trunk)

    def first_rotary(self, count: int) -> tuple[Tensor, Tensor] | None:
        """cos and sin [count, d / 2] of the first slots; None if places are not rotary."""
        return None

    def texts_of(
        self, condition: Condition, batch: int, null: Tensor | None = None
    ) -> dict[str, LayerText | SeenText]:
        """Arguments of `run`: text that blocks read, which slots in front are seen; {} if neither
        is needed."""
        found = {} if self.texts is None else {"text": self.texts(condition, batch, null)}
        seen = self.condition.seen(condition, batch)
        return found if seen is None else {**found, "seen": seen}

    def start(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """Slots [B, S, W] in front of the positions; `null` as in `ConditionTokens`."""
        raise NotImplementedError

    def run(
        self,
        x: Tensor,
        first: int | Tensor,
        start: Tensor,
        caches: list | None = None,
        **text: LayerText,
    ) -> Tensor:
        """Hidden states [R, n, W] of the slots first.. of sequences in their given order.

        Args:
            first: number of the first slot; or [R, n], the slots of rows at different places,
                whose caches know them too.
            x: [R, n, W] embeddings of these slots; the slots before them are in the caches.
            start: [R, S, W], of these rows.
            text: as `texts_of` gives it, of these rows.
        """
        raise NotImplementedError

    # -- training -------------------------------------------------------------------------------

    def counted(self, condition: Condition, batch: int) -> Tensor | None:
        """[B] bool: samples that loss and metrics count; None = all."""
        text = self.config.condition.text
        ignores = text is not None and text.textless == "ignored"
        return with_text(condition, batch) if ignores else None

    def nats(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Negative log-likelihood [B, L] of each position; 0 behind the prefix of cut tokens."""
        indices = self.regrouped(tokens).indices.long()
        nats = self.nats_of(indices, condition, None if draws is None else draws.null)
        return nats if tokens.keep is None else nats * tokens.kept()

    def nats_of(
        self, indices: Tensor, condition: Condition, null: Tensor | None, **given: Tensor
    ) -> Tensor:
        """Negative log-likelihood [B, L] of indices [B, L, F] in their given order.

        Args:
            null: as in `start`. given: further arguments of `run`.
        """
        start = self.start(condition, len(indices), null)
        text = self.texts_of(condition, len(indices), null)
        x = torch.cat([start, self.embed(self.codes_before_last(indices))], dim=1)
        hidden = self.run(x, 0, start, **text, **given)[:, start.shape[1] - 1 :]
        return self.head(hidden, indices)

    def codes_before_last(self, indices: Tensor) -> Tensor:
        """The codes [B, n, F] of all positions from which another one is predicted."""
        return indices[:, :-1]

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: nats per position; bits_per_image: length of an arithmetic code."""
        nats = self.nats(tokens, condition, draws)
        counted = self.counted(condition, len(nats))
        bits = weighted_mean(nats.detach().sum(-1, keepdim=True), counted) / math.log(2)
        return {"loss": weighted_mean(nats, counted), "bits_per_image": bits}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """nll: nats per position; bits_per_image: length of an arithmetic code."""
        nats = self.nats(tokens, condition)
        counted = self.counted(condition, len(nats))
        nats = nats if counted is None else nats[counted.to(nats.device)]
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

    def check_settings(self, settings: SequentialSampling) -> None:
        each = settings.of_factors(len(self.inner.vocab))
        check_choice(self.head_kind, any(one.narrows for one in each))

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        spec, factors, samples = self.spec, len(self.inner.vocab), len(index)
        steps, total = self.steps(positions), len(self.steps(spec.length))
        run = Decoding(
            self,
            condition,
            samples,
            len(steps),
            guided=settings.guided,
            cache=settings.cache,
            fast=settings.fast,
            dtype=dtype_of(settings.precision),
            single=settings.jacobi is None,
        )
        known = None if condition.known is None else self.regrouped(condition.known).indices.long()
        if settings.jacobi is not None:
            given = (settings, index, seed, known, condition.known_mask)
            chosen, self.passes = decode(run, positions, *given)
            # Positions that were not asked for are cut from the tokens; here they are 0.
            chosen = nn.functional.pad(chosen, (0, 0, 0, spec.length - positions))
            return self.tokens_of(chosen)
        self.passes = torch.full((samples,), len(steps))
        u = Rng(seed, "sampling").uniform(index, (spec.length, factors)).to(run.start.device)
        chosen = torch.zeros(samples, spec.length, factors, dtype=torch.long, device=u.device)
        each = settings.of_factors(factors)
        for i, cells in enumerate(steps):
            hidden = run.feed(chosen[:, steps[i - 1]]) if i else run.begin()
            head, states = run.model.predicted(hidden[:, -1:])
            done, numbers, codes = i / total, u[:, cells], []
            for place, state in enumerate(states.unbind(1)):

                def pick(logits: Tensor, f: int, done: float = done, u: Tensor = numbers[:, place]):
                    return choose(guide(logits, each[f].scale_at(done), samples), u[:, f], each[f])

                codes.append(head.sample(state, pick))
            new = torch.stack(codes, dim=1)
            if known is not None:
                new = torch.where(condition.known_mask[:, cells, None], known[:, cells], new)
            chosen[:, cells] = new
        return self.tokens_of(chosen)

    def steps(self, positions: int) -> Sequence[slice | Tensor]:
        """Positions [c] of the codes that each step of sampling predicts, for the first ones."""
        return [slice(i, i + 1) for i in range(positions)]

    def predicted(self, hidden: Tensor) -> tuple[nn.Module, Tensor]:
        """The head of single codes, and the states [R, c, W] of the codes of a step, from that of
        the step before [R, 1, W]."""
        return self.head, hidden

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
            if self.head_kind not in OF_BITS:
                return FactorEmbedding(vocab, width)
            return BitEmbedding(len(vocab), width, config.bit_values == "signs")
        if codes is None:
            raise InputError(
                f"embed={config.embed} needs the tokenizer's code vectors; give "
                "codes=tokenizer.quantizer"
            )
        embed = CodeEmbedding(vocab, self.spec.dim, width, frozen=config.embed == "codes")
        if not isinstance(codes, SavedCodes):
            embed.fill(codes, self.spec.vocab)
        return embed
