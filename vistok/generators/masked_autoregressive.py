"""Masked autoregressive models (MAR, arXiv 2406.11838; with a head for the dimensions of a token,
TokenBridge, arXiv 2503.16430).

Positions come in a random order, some at each step. An encoder sees those that are known, a decoder
gives features of the others (`vistok.layers.masked_trunk`), and a head of its own registered kind
(`token_head`) models a token given its features; all tokens of a step are independent given what is
known. The class stands in several slots in front. In training one share of the positions is masked
in all samples of a batch.
A head is built as `Kind(config, width, vocab)` and has `logits(features, indices)` and
`sample(features, pick)`, as `DimensionHead` describes them.
Letters: B batch, S slots in front, L positions, F factors, V vocabulary of a factor, W width.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator, GeneratorConfig, SavedCodes
from vistok.generators.conditioning import ConditionTokens, check_in_front
from vistok.generators.dimension_head import DimensionHeadConfig
from vistok.generators.embedding import FactorEmbedding, ValueEmbedding
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.generators.heads import check_head
from vistok.generators.mask_share import MaskShareConfig
from vistok.generators.masked_metrics import over_masks, right_share
from vistok.generators.noise import uniform_on
from vistok.generators.orders import MaskSchedule, mask_ratio, random_order
from vistok.generators.sampling import ChoiceConfig, choose
from vistok.layers.masked_trunk import MaskedTrunk
from vistok.layers.transformer import UnrotatedConfig, init_weights
from vistok.runtime import distributed
from vistok.tokens import Tokens, TokenSpec

_TRANSFORMER = UnrotatedConfig(
    width=1024, depth=16, heads=16, init="xavier_fused", branch_scale="none"
)


class MaskedAutoregressiveSampling(ChoiceConfig, GuidanceConfig):
    """Sampling settings; guidance mixes the features that the head reads."""

    steps: int = Field(default=64, ge=1, le=10_000)
    """T, evaluations of the trunk (two each with guidance)."""
    schedule: MaskSchedule = "cosine"
    """Share of the positions that stay masked after r of the steps: cosine, cos(r pi / 2) (MAR);
    arccos, acos(r) 2 / pi; linear, 1 - r; root, 1 - sqrt(r); square, 1 - r**2. Each step predicts
    a position at least while there are any. The guidance grows with the share of positions that are
    known, and not with that of the steps."""

    def masked_after(self, step: int, length: int) -> int:
        """Positions of `length` that the schedule leaves masked after step 0..T-1."""
        if self.schedule == "cosine":  # rounded as MAR computes it: a whole number may round down
            share = float(np.cos(math.pi / 2.0 * (step + 1) / self.steps))
        else:
            done = torch.tensor((step + 1) / self.steps, dtype=torch.float64)
            share = float(mask_ratio(done, self.schedule))
        return max(math.floor(length * share), 0)


class MaskedAutoregressiveConfig(GeneratorConfig):
    kind: Literal["masked_autoregressive"] = "masked_autoregressive"
    encoder: UnrotatedConfig = _TRANSFORMER
    """Sees the slots of the condition and the positions that are known."""
    decoder: UnrotatedConfig = _TRANSFORMER
    """Sees all positions."""
    norm_in_eps: float = Field(default=1e-6, gt=0, le=1)
    """Epsilon of the norm behind the embeddings and their positions."""
    slots: int = Field(default=64, ge=1, le=2**14)
    """Slots in front that all hold the class."""
    head: Annotated[Any, PartOf("token_head")] = DimensionHeadConfig()
    """Model of a token, given its features."""
    embed: Literal["learned", "values"] = "learned"
    """Embeddings of tokens. learned: a table per factor; values: a linear map of the values that
    the tokenizer's codes stand for, one per factor (TokenBridge)."""
    quantizer: Annotated[Any, PartOf("quantizer")] | None = None
    """Quantizer without weights (scalar) whose values are read for embed=values; null = that of the
    tokenizer whose tokens are learned."""
    masks: MaskShareConfig = MaskShareConfig()
    """Share of masked positions in training."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""
    sampling: MaskedAutoregressiveSampling = MaskedAutoregressiveSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> MaskedAutoregressiveConfig:
        return cls(
            encoder=UnrotatedConfig.tiny(),
            decoder=UnrotatedConfig.tiny(),
            slots=2,
            head=DimensionHeadConfig.tiny(),
            masks=MaskShareConfig(mean=0.5, low=0.25, high=0.75),
            sampling=MaskedAutoregressiveSampling(steps=3),
        )

    @property
    def wants_codes(self) -> bool:
        return self.embed == "values" and self.quantizer is None

    @model_validator(mode="after")
    def _fits(self) -> MaskedAutoregressiveConfig:
        if self.quantizer is not None and self.embed != "values":
            raise InputError(
                f"quantizer={{kind: {self.quantizer.kind}}} with embed={self.embed}: nothing reads "
                "its values; leave it out, or set embed=values"
            )
        for name in ("encoder", "decoder"):
            if (modulation := getattr(self, name).modulation) is not None:
                raise InputError(
                    f"{name}.modulation={modulation}: the condition stands in front of the tokens "
                    "and modulates nothing; leave it out"
                )
        return self


@register("generator", MaskedAutoregressiveConfig)
class MaskedAutoregressive(Generator):
    """Predicts masked positions from those that are known, the factors of each by a head."""

    metrics = ("masked_nll", "masked_accuracy")
    judged_by = ("masked_nll", -1)
    takes_known = True

    def __init__(
        self,
        config: MaskedAutoregressiveConfig,
        spec: TokenSpec,
        codes: nn.Module | None = None,
    ) -> None:
        super().__init__(config, spec)
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        check_head("independent", self.inner.vocab)
        check_in_front(config.condition, f"kind={config.kind}")
        width = config.encoder.width
        self.condition = ConditionTokens(config.condition, width)
        self.embed = self._embedding(codes)
        for part in (self.condition, self.embed):
            init_weights(part, config.encoder)
            for layer in part.modules():
                if isinstance(layer, nn.Embedding):
                    nn.init.normal_(layer.weight, std=config.encoder.init_std)
        slots = self.condition.count - 1 + config.slots
        self.trunk = MaskedTrunk(
            config.encoder, config.decoder, slots, spec.length, config.norm_in_eps
        )
        self.head = build(config.head, config.decoder.width, self.inner.vocab)

    # -- the network ----------------------------------------------------------------------------

    def front(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """Slots [B, S, W] in front of the positions: those of a text, if any, then the class again
        and again; `null` as in `ConditionTokens`."""
        tokens = self.condition(condition, batch, null)
        last = tokens[:, -1:].expand(-1, self.config.slots, -1)
        return torch.cat([tokens[:, :-1], last], dim=1)

    def inputs(self, indices: Tensor, front: Tensor) -> Tensor:
        """What the trunk reads [B, S + L, W]: slots in front, embeddings of indices [B, L, F]."""
        return torch.cat([front, self.embed(indices).to(front.dtype)], dim=1)

    def logits(
        self,
        indices: Tensor,
        mask: Tensor,
        front: Tensor,
        room: int | None = None,
        seen: Tensor | None = None,
    ) -> list[Tensor]:
        """fp32 logits [B, L, V] of each factor, given the true ones that the head sees first.

        Args:
            indices: [B, L, F]. mask: [B, L] bool, hidden from the trunk. front: [B, S, W].
            room, seen: as in `MaskedTrunk`.
        """
        features = self.trunk(self.inputs(indices, front), mask, room, seen=seen)
        return self.head.logits(features, indices)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, and a mask [B, L] of each sample."""
        own = PartDraws(mask=self.config.masks.mask(index, rng, self.spec.length))
        return super().draw(index, rng, progress).join(Draws(parts={"generator": own}))

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: nats per factor of a masked position; masked_accuracy: share of masked codes that
        are right. Means over the whole batch, of all processes. Without draws, what `evaluate`
        finds."""
        if draws is None:
            found = self.evaluate(tokens, condition)
            sums = {name: torch.as_tensor(total / count) for name, (total, count) in found.items()}
            return {"loss": sums["masked_nll"].float() / len(self.inner.vocab), **sums}
        indices, seen = self._codes(tokens)
        mask = draws.part("generator").mask
        room = self.config.masks.most_visible(self.spec.length)
        front = self.front(condition, len(indices), draws.null)
        logits = self.logits(indices, mask, front, room, seen)
        weight = (mask if seen is None else mask & seen).float()
        # Ranks' losses are averaged: over the mean of their counts, they give the whole batch's.
        count = distributed.mean(weight.sum()).clamp(min=1e-8)
        nats = self._nats(logits, indices) / len(logits)
        right = right_share(logits, indices)
        return {
            "loss": (nats * weight).sum() / count,
            "masked_accuracy": ((right * weight).sum() / count).detach(),
        }

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """masked_nll and masked_accuracy, as `masked_metrics` defines them."""
        indices, seen = self._codes(tokens)
        front = self.front(condition, len(indices))

        def score(mask: Tensor) -> tuple[Tensor, Tensor]:
            visible = ~mask if seen is None else seen & ~mask
            room = int(visible.sum(-1).max())
            logits = self.logits(indices, mask, front, room, seen)
            return self._nats(logits, indices), right_share(logits, indices)

        return over_masks(indices, seen, score)

    def _nats(self, logits: list[Tensor], indices: Tensor) -> Tensor:
        """Cross-entropy [B, L], added up over factors."""
        return sum(
            F.cross_entropy(part.flatten(0, 1), indices[..., f].flatten(), reduction="none")
            for f, part in enumerate(logits)
        ).view(indices.shape[:2])

    # -- sampling -------------------------------------------------------------------------------

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        rng, shape = Rng(seed, "sampling"), (self.spec.length, len(self.inner.vocab))
        u = uniform_on(self.trunk.mask_token.device, rng.child("choice"), index, shape)
        return self.unmasked(condition, random_order(index, rng, self.spec.length), u, settings)

    def unmasked(
        self,
        condition: Condition,
        order: Tensor,
        u: Tensor,
        settings: MaskedAutoregressiveSampling,
    ) -> Tokens:
        """Samples in given orders, of given uniform numbers.

        Args:
            order: [B, L] positions, the first to be predicted first. u: [B, L, F] in [0, 1).
        """
        samples, length = order.shape
        device, factors = u.device, u.shape[-1]
        codes = torch.zeros(samples, length, factors, dtype=torch.long, device=device)
        mask = torch.ones(samples, length, dtype=torch.bool, device=device)
        if condition.known is not None:
            codes = self.regrouped(condition.known).indices.long().to(device)
            mask = ~condition.known_mask.to(device)
        # How many masked positions come after a position in the order.
        turn = order.to(device).argsort(dim=1).masked_fill(~mask, -1)
        behind = turn.argsort(dim=1).argsort(dim=1).neg() + length - 1
        total = left = mask.sum(-1).tolist()
        front = self.front(condition, samples)
        if settings.guided:
            front = torch.cat([front, self.front(Condition(), samples)])
        for step in range(settings.steps):
            wanted = [settings.masked_after(step, count) for count in total]
            kept = [min(max(min(a, b - 1), 1), b) for a, b in zip(wanted, left, strict=True)]
            scales = [settings.scale_at((length - count) / length) for count in kept]
            if step == settings.steps - 1:  # the last one is guided as if one position stayed
                kept = [0] * samples
            new = mask & (behind >= torch.tensor(kept, device=device)[:, None])
            if kept != left:
                features = self._features(codes, mask, front, left, scales)
                codes[new] = self.head.sample(features[new], _picker(u[new], settings))
            mask, left = mask & ~new, kept
        return self.tokens_of(codes)

    def _features(
        self, codes: Tensor, mask: Tensor, front: Tensor, left: list[int], scales: list[float]
    ) -> Tensor:
        """Guided features [B, L, D]; of each sample: `left` masked positions, `scales`."""
        samples, room = len(codes), codes.shape[1] - min(left)
        if all(scale == 1.0 for scale in scales):
            front = front[:samples]
        elif len(front) > samples:
            codes, mask = codes.repeat(2, 1, 1), mask.repeat(2, 1)
        x = self.inputs(codes, front)
        features = self.trunk(x, mask, room, even=min(left) == max(left))
        scale = torch.tensor(scales, device=features.device)[:, None, None].to(features)
        return guide(features, scale, samples)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {
            **super().summary(),
            "vocabulary": " x ".join(map(str, self.inner.vocab)),
            "head": self.config.head.kind,
        }

    def _codes(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Indices [B, L, F] int64, and the positions that exist [B, L], None = all."""
        indices = self.regrouped(tokens).indices.long()
        return indices, None if tokens.keep is None else tokens.kept()

    def _embedding(self, codes: nn.Module | None) -> nn.Module:
        config, vocab = self.config, self.inner.vocab
        if config.embed == "learned":
            return FactorEmbedding(vocab, config.encoder.width)
        if vocab != self.spec.vocab:
            raise InputError(
                f"embed=values with regroup={list(vocab)}: values are those of the tokenizer's own "
                "factors; leave one out"
            )
        if config.quantizer is not None:
            codes = build(config.quantizer)
        if codes is None:
            raise InputError(
                "embed=values needs the values of the tokenizer's codes; give "
                "codes=tokenizer.quantizer, or quantizer={kind: scalar, ...}"
            )
        embed = ValueEmbedding(vocab, config.encoder.width)
        if not isinstance(codes, SavedCodes):
            embed.fill(codes)
        return embed


def _picker(u: Tensor, settings: MaskedAutoregressiveSampling):
    """Choice of codes from logits [R, V] of a factor, by uniform numbers [R, F]."""
    return lambda logits, f: choose(logits, u[:, f], settings)
