"""Masked generators: some positions are hidden and predicted from all others (MaskGIT, arXiv
2202.04200; on 1D tokens TiTok, arXiv 2406.07550).

In training a random share of the positions is masked; samples are made in a few parallel steps
(`unmasking`). The network between embeddings and logits is a trunk of its own, of any registered
kind: bert, uvit, mmdit.
A trunk is built as `Kind(config, front, length)`, maps embeddings [B, L, W] to hidden states
[B, L, W], and says by `reads` in which form it wants the condition (`READERS`); its config may say
by `embedding_std` how large embeddings start (0.02).
Letters: B batch, L positions, F factors, V vocabulary of a factor, W width, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import PartOf
from vistok.config.registry import build, entry_of, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator, GeneratorConfig
from vistok.generators.conditioning import ConditionConfig, ConditionTokens, check_in_front
from vistok.generators.embedding import FactorEmbedding
from vistok.generators.guidance import guide
from vistok.generators.heads import check_head
from vistok.generators.masked_metrics import over_masks, right_share
from vistok.generators.noise import uniform_on
from vistok.generators.orders import MaskSchedule, random_mask
from vistok.generators.text_streams import StreamReader
from vistok.generators.unmasking import (
    MaskedSampling,
    StepNoise,
    choose_codes,
    count_masked,
    least_sure,
)
from vistok.layers.bert import BertConfig
from vistok.runtime import distributed
from vistok.tokens import Tokens, TokenSpec


class FrontReader(nn.Module):
    """Conditions as slots in front of the positions: the class, and text if any is read."""

    def __init__(self, condition: ConditionConfig, trunk: Any) -> None:
        super().__init__()
        check_in_front(condition, f"trunk={trunk.kind}")
        self.tokens = ConditionTokens(condition, trunk.width)
        self.front = self.tokens.count

    def check_empty(self) -> None:
        """Samples without a condition have learned slots."""

    def forward(self, condition: Condition, batch: int, null: Tensor | None) -> dict[str, Tensor]:
        """Arguments of the trunk; `null` as in `ConditionTokens`."""
        return {"front": self.tokens(condition, batch, null)}


READERS: dict[str, type[nn.Module]] = {"front": FrontReader, "streams": StreamReader}
"""Readers of conditions by the form that trunks want; built as `Reader(condition, trunk)` of both
configs, with `front`, their number of slots among the positions."""


class MaskedConfig(GeneratorConfig):
    kind: Literal["masked"] = "masked"
    trunk: Annotated[Any, PartOf("trunk")] = BertConfig()
    """Network between embeddings and logits."""
    tied: bool = False
    """The logits are products with the embeddings of the codes, without a bias (MaskGen)."""
    masks: MaskSchedule = "arccos"
    """Share of masked positions in training, for u uniform in 0..1: arccos, acos(u) 2 / pi; cosine,
    cos(u pi / 2); linear, 1 - u; root, 1 - sqrt(u); square, 1 - u**2."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    unmasked_weight: float = Field(default=0.1, ge=0, le=1)
    """Weight of positions that are not masked in the loss; masked ones have 1."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""
    sampling: MaskedSampling = MaskedSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> MaskedConfig:
        return cls(trunk=BertConfig.tiny(), sampling=MaskedSampling(steps=3, noise=1.0))


@register("generator", MaskedConfig)
class Masked(Generator):
    """Predicts masked positions from all others; factors of a position independently."""

    metrics = ("masked_nll", "masked_accuracy")
    judged_by = ("masked_nll", -1)
    takes_known = True

    def __init__(
        self, config: MaskedConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        vocab, width = self.inner.vocab, config.trunk.width
        check_head("independent", vocab)
        reader = READERS[entry_of(config.trunk).part.reads]
        std = getattr(config.trunk, "embedding_std", 0.02)
        self.condition = reader(config.condition, config.trunk)
        self.embed = FactorEmbedding(vocab, width)
        for layer in (*self.condition.modules(), *self.embed):
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=std)
        self.mask_token = nn.Parameter(torch.randn(1, width) * std)
        self.trunk = build(config.trunk, self.condition.front, spec.length)
        self.head = None
        if not config.tied:
            self.head = nn.Linear(width, sum(vocab))
            nn.init.zeros_(self.head.weight)  # the first loss is log V exactly
            nn.init.zeros_(self.head.bias)

    # -- the network ----------------------------------------------------------------------------

    def logits(
        self,
        indices: Tensor,
        mask: Tensor,
        condition: Condition,
        null: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> list[Tensor]:
        """fp32 logits [B, L, V] of each factor.

        Args:
            indices: [B, L, F], of any value where they are masked. mask: [B, L] bool.
            null: [B] bool, samples without their condition.
            seen: [B, L] bool, positions that exist; None = all.
        """
        return self.run(indices, mask, self.condition(condition, len(indices), null), seen)

    def run(
        self,
        indices: Tensor,
        mask: Tensor,
        given: Mapping[str, Tensor],
        seen: Tensor | None = None,
    ) -> list[Tensor]:
        """The same, of what the reader of conditions gives to the trunk."""
        x = torch.where(mask[..., None], self.mask_token, self.embed(indices))
        hidden = self.trunk(x, seen=seen, **given)
        if self.head is not None:
            return list(self.head(hidden).float().split(self.inner.vocab, dim=-1))
        return [F.linear(hidden, table.weight).float() for table in self.embed]

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, and a mask [B, L] of each sample."""
        mask = random_mask(index, rng, self.spec.length, self.config.masks)
        own = Draws(parts={"generator": PartDraws(mask=mask)})
        return super().draw(index, rng, progress).join(own)

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: weighted nats per position, labels smoothed; masked_accuracy: mean over samples of
        the share of masked codes that are right. Without draws, what `evaluate` finds.

        The weights add up over the whole batch, of all processes.
        """
        if draws is None:
            found = self.evaluate(tokens, condition)
            sums = {name: torch.as_tensor(total / count) for name, (total, count) in found.items()}
            return {"loss": sums["masked_nll"].float(), **sums}
        indices, seen = self._codes(tokens)
        mask = draws.part("generator").mask
        mask = mask if seen is None else mask & seen
        logits = self.logits(indices, mask, condition, draws.null, seen)
        nats = self._nats(logits, indices, self.config.label_smoothing)
        weight = torch.where(mask, 1.0, self.config.unmasked_weight).to(nats)
        weight = weight if seen is None else weight * seen
        # Ranks' losses are averaged: over the mean of their weights, they give the whole batch's.
        loss = (nats * weight).sum() / (distributed.mean(weight.sum()) + 1e-8)
        right = right_share(logits, indices) * mask
        share = right.sum(-1) / (mask.sum(-1) + 1e-8)
        return {"loss": loss, "masked_accuracy": share.mean().detach()}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """masked_nll and masked_accuracy, as `masked_metrics` defines them; labels not smoothed."""
        indices, seen = self._codes(tokens)

        def score(mask: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.logits(indices, mask, condition, seen=seen)
            return self._nats(logits, indices), right_share(logits, indices)

        return over_masks(indices, seen, score)

    def _nats(self, logits: list[Tensor], indices: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy [B, L], added up over factors."""
        return sum(
            F.cross_entropy(
                part.transpose(1, 2), indices[..., f], reduction="none", label_smoothing=smoothing
            )
            for f, part in enumerate(logits)
        )

    # -- sampling -------------------------------------------------------------------------------

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        length, width = self.spec.length, sum(self.inner.vocab)
        device = self.mask_token.device

        def noise(step: int) -> StepNoise:
            rng = Rng(seed, "sampling", step)
            choice = uniform_on(device, rng.child("choice"), index, (length, width))
            ranks = uniform_on(device, rng.child("confidence"), index, (length,))
            return StepNoise(choice, ranks)

        return self.unmasked(condition, len(index), noise, settings)

    def unmasked(
        self,
        condition: Condition,
        samples: int,
        noise: Callable[[int], StepNoise],
        settings: MaskedSampling,
    ) -> Tokens:
        """Samples made with given uniform numbers.

        Args:
            samples: B. noise: gives the numbers of each step 0..T-1.
        """
        if settings.guided or condition.text is None:
            self.condition.check_empty()
        shape, device = (samples, self.spec.length), self.mask_token.device
        codes = torch.zeros(*shape, len(self.inner.vocab), dtype=torch.long, device=device)
        mask = torch.ones(shape, dtype=torch.bool, device=device)
        if condition.known is not None:
            codes = self.regrouped(condition.known).indices.long().to(device)
            mask = ~condition.known_mask.to(device)
        length = mask.sum(-1)
        given, both = self.condition(condition, samples, None), {}
        if settings.guided:
            free = self.condition(Condition(score=condition.score), samples, None)
            both = {name: torch.cat([one, free[name]]) for name, one in given.items()}
        for step in range(settings.steps):
            scale = settings.guidance_at(step)
            if scale == 1.0:
                logits = self.run(codes, mask, given)
            else:
                logits = self.run(codes.repeat(2, 1, 1), mask.repeat(2, 1), both)
                logits = [guide(part, scale, samples) for part in logits]
            chosen, sure = choose_codes(logits, noise(step), step, settings)
            codes = torch.where(mask[..., None], chosen, codes)
            if step < settings.steps - 1:
                mask = least_sure(sure, mask, count_masked(length, step, settings))
        return self.tokens_of(codes)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {
            **super().summary(),
            "vocabulary": " x ".join(map(str, self.inner.vocab)),
            "trunk": self.config.trunk.kind,
        }

    def _codes(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Indices [B, L, F] int64, and the positions that exist [B, L], None = all."""
        indices = self.regrouped(tokens).indices.long()
        return indices, None if tokens.keep is None else tokens.kept()
