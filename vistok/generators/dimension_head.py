"""Prediction of a token's dimensions one after another, modulated by the trunk's features
(TokenBridge, arXiv 2503.16430, section 3.3).

Each token has a sequence of its own, as in intra_head.py: its context (the projected features),
then the embeddings of its dimensions but the last. The dimensions may come in any fixed order. The
context, plus a learned vector of the step, scales, shifts and gates every block (adaLN) and
modulates a last norm; each dimension has tables and a classifier of its own.
Letters: R rows (tokens), W width, F factors (dimensions), V vocabulary of a factor.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.generators.heads import Pick
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import make_norm
from vistok.layers.transformer import Transformer, UnrotatedConfig, init_weights


class DimensionHeadConfig(Config):
    kind: Literal["dimensions"] = "dimensions"
    transformer: UnrotatedConfig = UnrotatedConfig(
        depth=4, qk_norm=True, qk_norm_kind="layernorm", init="xavier_fused", branch_scale="none"
    )
    """Blocks over a token's dimensions; its context modulates them."""
    order: tuple[int, ...] | None = None
    """Dimensions in the order in which they are predicted, each once; null = from first to last.
    TokenBridge orders the 16 channels of its VAE by their frequencies."""
    embedding_std: float = Field(default=0.02, gt=0, le=10)
    """Standard deviation of the tables of earlier dimensions at the start (TokenBridge: 1)."""
    sampled_start: Literal["trained", "with_step"] = "trained"
    """First input of a sequence in sampling. trained: the context, as in training; with_step: the
    context plus the vector of the first step, an inconsistency of TokenBridge's sampler, with which
    its published weights were evaluated."""

    @classmethod
    def tiny(cls) -> DimensionHeadConfig:
        return cls(transformer=UnrotatedConfig.tiny())

    @model_validator(mode="after")
    def _fits(self) -> DimensionHeadConfig:
        if self.transformer.modulation is not None:
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: the context modulates, "
                "whose width is that of the transformer; leave it out"
            )
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise InputError(
                f"order={list(self.order)}: expected each of the numbers 0..{len(self.order) - 1} "
                "once"
            )
        return self


@register("token_head", DimensionHeadConfig)
class DimensionHead(nn.Module):
    """A causal transformer over [context, dimensions in their order], a classifier for each.

    Args:
        width: of the trunk's features. vocab: sizes of the dimensions, in the tokens' order.
    """

    def __init__(self, config: DimensionHeadConfig, width: int, vocab: tuple[int, ...]) -> None:
        super().__init__()
        factors, own = len(vocab), config.transformer
        if config.order is not None and len(config.order) != factors:
            raise InputError(
                f"head.order: {len(config.order)} numbers for tokens of {factors} dimensions; "
                f"expected {factors}, or null"
            )
        self.config, self.vocab = config, vocab
        self.order = tuple(range(factors)) if config.order is None else config.order
        sizes = [vocab[f] for f in self.order]
        table = lambda: nn.Parameter(torch.randn(factors, own.width) * 0.02)
        self.project = nn.Linear(width, own.width)
        self.embed = nn.ModuleList(nn.Embedding(size, own.width) for size in sizes[:-1])
        self.positions, self.steps = table(), table()
        self.transformer = Transformer(own.model_copy(update={"modulation": own.width}))
        self.norm_out = make_norm(own.norm, own.width, own.norm_eps, affine=False)
        self.modulation_out = Modulation(own.width, own.width, 2)
        self.out = nn.ModuleList(nn.Linear(own.width, size) for size in sizes)
        init_weights(self, own)
        for layer in self.embed:
            nn.init.normal_(layer.weight, std=config.embedding_std)
        for layer in self.out:  # the first loss is log V exactly
            nn.init.zeros_(layer.weight)

    def logits(self, features: Tensor, indices: Tensor) -> list[Tensor]:
        """fp32 logits [..., V] of each dimension, given the true ones before it in the order.

        Args:
            features: [..., width]. indices: [..., F]. Lists and columns are in the tokens' order.
        """
        context = self.project(features)[..., None, :]
        before = zip(self.embed, self.order, strict=False)  # the last one is before none
        x = [context, *(embed(indices[..., f])[..., None, :] for embed, f in before)]
        x, vector = torch.cat(x, dim=-2), context + self.steps
        shape = x.shape
        x = self._run(x.reshape(-1, *shape[-2:]), vector.reshape(-1, *shape[-2:]), 0).view(shape)
        found = {f: out(x[..., s, :]).float() for s, (f, out) in enumerate(self._classifiers())}
        return [found[f] for f in range(len(self.vocab))]

    def sample(self, features: Tensor, pick: Pick) -> Tensor:
        """Codes [R, F] of features [R, width]; `pick` takes logits [R, V] and a dimension's number
        and gives its codes [R]."""
        context = self.project(features)[:, None]
        vector = context + self.steps
        x = vector[:, :1] if self.config.sampled_start == "with_step" else context
        caches = self.transformer.new_caches(len(x), len(self.vocab), x)
        chosen: dict[int, Tensor] = {}
        for s, (f, out) in enumerate(self._classifiers()):
            hidden = self._run(x, vector[:, s : s + 1], s, caches)[:, 0]
            chosen[f] = pick(out(hidden).float(), f)
            if s < len(self.embed):
                x = self.embed[s](chosen[f])[:, None]
        return torch.stack([chosen[f] for f in range(len(self.vocab))], dim=-1)

    def _classifiers(self) -> list[tuple[int, nn.Module]]:
        """Dimension and classifier of each step."""
        return list(zip(self.order, self.out, strict=True))

    def _run(self, x: Tensor, vector: Tensor, first: int, caches: list | None = None) -> Tensor:
        """Inputs x [R, n, W] of the steps first.. -> hidden states, modulated by `vector`."""
        x = x + self.positions[first : first + x.shape[1]].to(x.dtype)
        x = self.transformer(x, causal=True, caches=caches, vector=vector)
        scale, shift = self.modulation_out(vector)
        return modulate(self.norm_out(x), shift, scale)
