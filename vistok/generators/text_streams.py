"""Texts as a stream beside the tokens, and a vector of each sample (MaskGen, arXiv 2501.07730).

The stream is a linear map of a text's features; the vector one of its pooled features, with the
sinusoids of a score behind them if one is read. Samples without their condition have the features
of the empty text, which are saved with the model; their score stays.
Letters: B batch, M text positions, C width of features, P width of pooled features, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.conditioning import (
    ConditionConfig,
    TextConditionConfig,
    check_shape,
    nulled,
)
from vistok.generators.scores import ScoreWaves
from vistok.layers.mmdit import MMDiTConfig


class StreamReader(nn.Module):
    """Conditions of a trunk with a stream of text; classes, if there are any, add to the vector."""

    front = 0

    def __init__(self, condition: ConditionConfig, trunk: MMDiTConfig) -> None:
        super().__init__()
        text, width, score = condition.text, trunk.width, condition.score
        if text is not None and text != TextConditionConfig(dim=text.dim, length=text.length):
            raise InputError(
                f"trunk=mmdit reads dim and length of condition.text alone; got {text}: leave the "
                "other options out"
            )
        if text is None or condition.pooled is None:
            raise InputError(
                "trunk=mmdit reads a text and its pooled features; give condition.text and "
                "condition.pooled, or use another trunk"
            )
        self.project_text = nn.Linear(text.dim, width)
        self.project_pooled = nn.Linear(
            condition.pooled + (0 if score is None else score.channels), width
        )
        for layer in (self.project_text, self.project_pooled):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.score, self.waves = score, None if score is None else ScoreWaves(score)
        classes = condition.classes or 0  # the last row is that of samples without one
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.register_buffer("empty", torch.zeros(text.length, text.dim))
        self.register_buffer("empty_mask", torch.zeros(text.length, dtype=torch.bool))
        self.register_buffer("empty_pooled", torch.zeros(condition.pooled))

    @torch.no_grad()
    def fill_empty(self, empty: Condition) -> None:
        """Set the features of the empty text: text [1, M, C], text_mask [1, M], pooled [1, P]."""
        check_shape("text", empty.text, tuple(self.empty.shape))
        check_shape("pooled", empty.pooled, tuple(self.empty_pooled.shape))
        self.empty.copy_(empty.text[0])
        self.empty_mask.copy_(empty.text_mask[0])
        self.empty_pooled.copy_(empty.pooled[0])

    @property
    def knows_empty(self) -> bool:
        """True if the empty text is set."""
        return bool(self.empty_mask.any())

    def check_empty(self) -> None:
        """InputError if samples without a condition have no features to stand for it."""
        if not self.knows_empty:
            raise InputError(
                "guidance: the features of the empty text, which stand for no condition, are not "
                "known; call generator.use_text_encoder(encoder), or sample with guidance=1"
            )

    def forward(
        self, condition: Condition, batch: int, null: Tensor | None = None
    ) -> dict[str, Tensor]:
        """text [B, M, W], text_mask [B, M] and vector [B, W], for the trunk.

        Args:
            null: [B] bool, samples that lose their condition besides those of `condition.null`.
        """
        text, mask, pooled = self.features(condition, batch, null)
        vector = self.project_pooled(pooled)
        if self.label is not None:
            vector = vector + self.label(self._classes(condition, batch, null))
        return {"text": self.project_text(text), "text_mask": mask, "vector": vector}

    def features(
        self, condition: Condition, batch: int, null: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text [B, M, C], which positions are text [B, M] bool, and pooled features with the
        sinusoids behind them [B, P + channels]."""
        like = self.project_text.weight
        null = nulled(condition, null, like.device)

        def chosen(given: Tensor | None, empty: Tensor) -> Tensor:
            empty = empty.expand(batch, *empty.shape)
            if given is None:
                return empty
            given = given.to(empty)
            if null is None:
                return given
            return torch.where(null.view(-1, *[1] * (given.ndim - 1)), empty, given)

        mask = condition.text_mask
        if mask is None and condition.text is not None:
            mask = torch.ones(condition.text.shape[:2], dtype=torch.bool)
        pooled = chosen(condition.pooled, self.empty_pooled)
        if self.waves is not None:
            score = condition.score
            score = pooled.new_full((batch,), self.score.value) if score is None else score
            pooled = torch.cat([pooled, self.waves(score.to(pooled))], dim=-1)
        return chosen(condition.text, self.empty), chosen(mask, self.empty_mask), pooled

    def _classes(self, condition: Condition, batch: int, null: Tensor | None) -> Tensor:
        """Rows [B] of the table of classes."""
        nothing, label = self.label.num_embeddings - 1, condition.label
        null = nulled(condition, null, self.label.weight.device)
        if label is None:
            return torch.full((batch,), nothing, device=self.label.weight.device)
        unknown = label < 0 if null is None else null | (label < 0)
        return torch.where(unknown, nothing, label)
