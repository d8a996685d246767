"""A decoder-only transformer over tokens (Llama-style; LlamaGen, arXiv 2406.06525).

One condition token, then the positions in order; position i is predicted from those before it.
Built from a TokenSpec alone: any vocabulary (one softmax, factors, bits), any prefix length.
Letters: B batch, L positions, F factors, W width, R rows (guidance doubles B).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator
from vistok.generators.heads import HeadKind, choose_head, make_head
from vistok.generators.sampling import SamplingConfig, choose
from vistok.layers.positions import grid_positions, rotary_table
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.runtime.modes import evaluating
from vistok.tokens import Tokens, TokenSpec


class AutoregressiveConfig(Config):
    kind: Literal["autoregressive"] = "autoregressive"
    transformer: TransformerConfig = TransformerConfig(
        norm="rmsnorm", mlp="swiglu", mlp_ratio=8 / 3, bias=False
    )
    positions: Literal["rope", "learned"] = "rope"
    """rope turns by the place in the sequence (in the grid, if the tokens are one 2D grid)."""
    classes: int | None = Field(default=None, ge=0)
    """Number of classes; 0 = unconditional; null = those of the training data."""
    class_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples that train without their class, for classifier-free guidance."""
    head: HeadKind | None = None
    """null: joint for one factor, bernoulli for bits, causal for other factors."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""


@register("generator", AutoregressiveConfig)
class Autoregressive(Generator):
    def __init__(
        self, config: AutoregressiveConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__()
        if not spec.vocab:
            raise ValueError(
                "kind=autoregressive models discrete tokens; these are continuous (vocab=())"
            )
        self.config, self.spec = config, spec
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        width, vocab = config.transformer.width, self.inner.vocab
        self.head_kind = config.head or choose_head(vocab)
        classes = config.classes or 0
        # The last row is the learned "nothing" of guidance, and all there is without classes.
        self.condition = nn.Embedding(classes + 1, width)
        if self.head_kind == "bernoulli":
            self.embed = nn.Linear(len(vocab), width)
        else:
            self.embed = nn.ModuleList(nn.Embedding(size, width) for size in vocab)
        self.transformer = Transformer(config.transformer)
        self.dropout = nn.Dropout(config.transformer.dropout)
        if config.positions == "learned":
            self.position_table = nn.Parameter(torch.randn(spec.length + 1, width) * 0.02)
        else:
            head_dim = width // config.transformer.heads
            cos, sin = rotary_table(_positions(spec), head_dim)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        init_weights(self, config.transformer)
        for layer in self.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        # After the sweep above: heads start from zero, so the first loss is log V exactly.
        self.head = make_head(self.head_kind, width, vocab)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        return Draws(null=rng.uniform(index) < self.config.class_dropout)

    def forward(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Nats [B, L] of each position; 0 behind the prefix of tokens that were cut."""
        indices = self._inner(tokens).indices.long()
        null = None if draws is None else draws.null
        start = self._start(condition.label, null, len(indices))
        x = torch.cat([start, self._embed(indices[:, :-1])], dim=1)
        nats = self.head(self._run(x, 0), indices)
        return nats if tokens.keep is None else nats * tokens.kept()

    def loss(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        return {"nll": self(tokens, condition, draws).mean()}

    # -- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor | None = None,
        length: int | None = None,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        batch: int | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        cache: bool = True,
    ) -> Tokens:
        """New tokens.

        Args:
            labels: [B] classes; None = unconditional (then `batch` or `index` gives B).
            length: stop at this prefix, if the spec allows it; None = whole sequences.
            seed, index: key the draws; sample numbers [B], 0..B-1 if None.
            cache: keep keys and values; without it every step runs the whole sequence again.
        """
        spec = self.spec
        length = spec.max_prefix if length is None else spec.check_length(length)
        settings = SamplingConfig(guidance, temperature, top_k, top_p)
        device = self.condition.weight.device
        rows = _batch_size(labels, index, batch)
        self._check_labels(labels)
        if self.head_kind == "bernoulli" and (top_k or top_p < 1):
            raise ValueError("top_k and top_p have no meaning for independent bits; leave them out")
        index = torch.arange(rows) if index is None else index.cpu()
        # A cut inside each block is no prefix of the sequence: everything is sampled, then cut.
        steps = spec.length if spec.prefix == "per_block" else spec.positions_in(length)
        factors = len(self.inner.vocab)
        u = Rng(seed, "sampling").uniform(index, (spec.length, factors)).to(device)
        labels = None if labels is None else labels.to(device)
        guided = guidance != 1.0
        x = self._start(labels, None, rows)
        if guided:
            nothing = torch.ones(rows, dtype=torch.bool, device=device)
            x = torch.cat([x, self._start(labels, nothing, rows)])
        chosen = torch.zeros(rows, spec.length, factors, dtype=torch.long, device=device)
        caches = self.transformer.new_caches(len(x), steps, x) if cache else None
        new, sequence = x, x
        with evaluating(self):
            for i in range(steps):
                hidden = self._run(new, i, caches) if cache else self._run(sequence, 0)
                pick = lambda logits, f, i=i: choose(logits, u[:, i, f], settings)
                chosen[:, i] = self.head.sample(hidden[:, -1], pick)
                new = self._embed(chosen[:, i : i + 1]).repeat(2 if guided else 1, 1, 1)
                sequence = sequence if cache else torch.cat([sequence, new], dim=1)
        tokens = Tokens(self.inner, indices=chosen.to(Tokens.dtype(self.inner)))
        if self.config.regroup is not None:
            tokens = tokens.regroup(spec.vocab)
        tokens = Tokens(spec, indices=tokens.indices)
        return tokens if length == spec.max_prefix else tokens.prefix(length)

    # -- pieces ---------------------------------------------------------------------------------

    def _run(self, x: Tensor, first: int, caches: list | None = None) -> Tensor:
        """x [R, n, W] at positions first.. -> hidden states [R, n, W]."""
        stop, rotary = first + x.shape[1], None
        if self.config.positions == "learned":
            x = x + self.position_table[first:stop].to(x.dtype)
        else:
            rotary = (self.rotary_cos[first:stop], self.rotary_sin[first:stop])
        return self.transformer(self.dropout(x), rotary, causal=True, caches=caches)

    def _embed(self, indices: Tensor) -> Tensor:
        """[B, n, F] -> [B, n, W]: the factors' embeddings added up."""
        if self.head_kind == "bernoulli":
            return self.embed(indices.to(self.embed.weight.dtype) * 2 - 1)
        return sum(layer(indices[..., f]) for f, layer in enumerate(self.embed))

    def _start(self, labels: Tensor | None, null: Tensor | None, rows: int) -> Tensor:
        """The condition token [rows, 1, W]."""
        nothing = self.condition.num_embeddings - 1
        device = self.condition.weight.device
        if labels is None or nothing == 0:
            labels = torch.full((rows,), nothing, device=device)
        elif null is not None:
            labels = torch.where(null.to(device), nothing, labels)
        return self.condition(labels)[:, None]

    def _inner(self, tokens: Tokens) -> Tokens:
        if tokens.spec.vocab == self.inner.vocab:
            return tokens
        return tokens.regroup(self.inner.vocab)

    def _check_labels(self, labels: Tensor | None) -> None:
        classes = self.condition.num_embeddings - 1
        if labels is not None and len(labels) and classes:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= classes:
                raise ValueError(f"labels lie in {low}..{high}; expected 0..{classes - 1}")
        elif labels is not None and len(labels):
            raise ValueError("this generator was trained without classes; leave labels out")


def _positions(spec: TokenSpec) -> Tensor:
    """[1+L, A]: the condition token at 0, the tokens behind it or on their grid from 1."""
    if len(spec.blocks) == 1 and len(spec.blocks[0]) == 2:
        cells = grid_positions(spec.blocks[0]) + 1
    else:
        cells = torch.arange(1, spec.length + 1).float()[:, None]
    return torch.cat([torch.zeros(1, cells.shape[1]), cells])


def _batch_size(labels: Tensor | None, index: Tensor | None, batch: int | None) -> int:
    sizes = {len(t) for t in (labels, index) if t is not None} | ({batch} if batch else set())
    if len(sizes) != 1:
        raise ValueError(
            f"labels, index and batch name {sorted(sizes) or 'no'} numbers of samples; expected one"
        )
    return sizes.pop()
