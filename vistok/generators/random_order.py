"""RAR: an autoregressive transformer trained on orders that anneal from random to raster
(Randomized Autoregressive Visual Generation, arXiv 2411.00776).

Sequence: [cls | condition tokens | tokens in the order of their sample]. A slot carries the
position of its own token and, added to it, that of the token which it predicts (target-aware):
without that a permuted order could not be followed. The embedding of the class, plus one of the
place in the sequence, modulates every block and the norm before the head. Samples are made in
raster order.
Letters: B batch, L positions, F factors, W width, S slots in front, R rows, n slots.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.orders import random_order
from vistok.generators.sequential import SequentialConfig, SequentialGenerator
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import make_norm
from vistok.layers.positions import rows_from
from vistok.layers.transformer import TransformerConfig
from vistok.tokens import Tokens, TokenSpec


class RandomnessConfig(Config):
    """Probability that a sample trains in a random order, over the course of training: 1 until
    `start`, then falling linearly to 0 at `end`; the raster order from there on."""

    start: float = Field(default=0.5, ge=0, le=1)
    """Share of the training steps."""
    end: float = Field(default=0.75, ge=0, le=1)
    """Share of the training steps. start=1, end=1: random to the end; 0 and 0: raster alone."""

    @model_validator(mode="after")
    def _ordered(self) -> RandomnessConfig:
        if self.start > self.end:
            raise InputError(f"got start={self.start} and end={self.end}; expected start <= end")
        return self

    def at(self, progress: Progress) -> float:
        """The probability at a step."""
        done = progress.step / progress.steps
        if done < self.start:
            return 1.0
        if done >= self.end:
            return 0.0
        return 1.0 - (done - self.start) / (self.end - self.start)


class RandomOrderConfig(SequentialConfig):
    kind: Literal["random_order"] = "random_order"
    transformer: TransformerConfig = TransformerConfig(
        qk_norm=True, qk_norm_kind="layernorm", init="trunc_normal", branch_scale="none"
    )
    randomness: RandomnessConfig = RandomnessConfig()
    """Annealing of the random orders."""

    @classmethod
    def tiny(cls) -> RandomOrderConfig:
        return cls(transformer=TransformerConfig.tiny())

    @model_validator(mode="after")
    def _not_modulated(self) -> RandomOrderConfig:
        if self.transformer.modulation is not None:
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: the condition's embedding "
                "modulates, whose width is that of the transformer; leave it out"
            )
        return self

    @property
    def trunk(self) -> TransformerConfig:
        return self.transformer.model_copy(update={"modulation": self.transformer.width})


@register("generator", RandomOrderConfig)
class RandomOrder(SequentialGenerator):
    """Predicts each position from the condition and those before it in any order."""

    def __init__(
        self, config: RandomOrderConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec, codes)
        width, eps = config.transformer.width, config.transformer.norm_eps
        self.transformer.norm = nn.Identity()  # the modulated norm below stands in its place
        self.cls_token = nn.Parameter(torch.zeros(1, width))
        slots = 1 + self.condition.count + spec.length
        table = lambda rows: nn.Parameter(torch.randn(rows, width) * 0.02)
        self.positions = table(slots)  # of a slot's own token
        self.target_positions = table(spec.length)  # of the token that it predicts
        self.places = table(slots)  # how far the sequence is, whatever its order
        self.norm_head = make_norm(config.transformer.norm, width, eps, affine=False)
        self.modulation_head = Modulation(width, width, 2)
        self.initialize(head_bias=True)

    # -- the network ----------------------------------------------------------------------------

    def start(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """[B, S, W]: the cls token, then the condition's tokens, the last of which modulates."""
        tokens = self.condition(condition, batch, null)
        return torch.cat([self.cls_token.expand(batch, 1, -1).to(tokens.dtype), tokens], dim=1)

    def run(
        self,
        x: Tensor,
        first: int | Tensor,
        start: Tensor,
        caches: list | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [R, n, W] of the slots first.. of a sequence.

        Args:
            order: [R, L] position of each token of the sequence; None = raster.
        """
        count, slots = x.shape[1], start.shape[1]
        if order is None:
            order = torch.arange(self.spec.length, device=x.device)[None]
        own = self.positions[:slots].expand(len(order), -1, -1)
        own = torch.cat([own, self.positions[slots:][order]], dim=1)
        # The last slot in front predicts the first token, and the last token predicts nothing.
        target = nn.functional.pad(self.target_positions[order], (0, 0, slots - 1, 1))
        if isinstance(first, Tensor):
            rows = torch.arange(len(first), device=x.device)[:, None]
            own, target = (one.expand(len(first), -1, -1)[rows, first] for one in (own, target))
        else:
            own, target = (one[:, first : first + count] for one in (own, target))
        x = x + own.to(x.dtype) + target.to(x.dtype)
        vector = start[:, -1:] + rows_from(self.places, first, count).to(start.dtype)
        x = self.transformer(x, causal=True, caches=caches, vector=vector)
        shift, scale = self.modulation_head(vector)
        return modulate(self.norm_head(x), shift, scale)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, and an order [B, L] of each sample."""
        share = self.config.randomness.at(progress)
        order = random_order(index, rng, self.spec.length, share)
        own = Draws(parts={"generator": PartDraws(order=order)})
        return super().draw(index, rng, progress).join(own)

    def nats(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Negative log-likelihood [B, L] of each position, in the drawn orders (raster without
        any); 0 behind the prefix of cut tokens."""
        order = None if draws is None else draws.part("generator").order
        if order is None:
            return super().nats(tokens, condition, draws)
        indices = self.regrouped(tokens).indices.long()
        order = order.to(indices.device)
        if tokens.keep is not None:  # what was cut comes last, where nothing is predicted from it
            last = (~tokens.kept()).gather(1, order).to(torch.uint8).argsort(dim=1, stable=True)
            order = order.gather(1, last)
        permuted = indices.gather(1, order[..., None].expand_as(indices))
        nats = self.nats_of(permuted, condition, draws.null, order=order)
        nats = torch.empty_like(nats).scatter(1, order, nats)
        return nats if tokens.keep is None else nats * tokens.kept()
