"""Conditions as tokens in front of the sequence: text features, then class and pooled features.

Text of several layers of a language model is read by the blocks of the transformer instead.
Without a condition (guidance, condition dropout, unlabeled samples) a learned "null" stands in its
place. A label of -1 means no class.
Letters: B batch, K layers of a language model, M text positions, C width of features, W width of
the generator.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config, ConfigError
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.generators.captions import (
    SeenText,
    caption_projection,
    moved_to_end,
    seen_slots,
    stored_empty,
)
from vistok.generators.known_codes import check_known, check_known_frames
from vistok.generators.scores import ScoreConfig
from vistok.layers.text_transformer import LayerText
from vistok.tokens import TokenSpec

UNLABELED = -1  # label of a sample without a class, in data sets and in Condition.label


class TextConditionConfig(Config):
    """Shape of the text features that a generator reads."""

    dim: int = Field(default=768, ge=1, le=2**14)
    """C, the width of the text encoder's features."""
    length: int = Field(default=77, ge=1, le=2**14)
    """M, positions of a text."""
    layers: int | None = Field(default=None, ge=1, le=512)
    """K, layers of a language model whose features are read inside the transformer, by each block
    its own (1: all blocks the same; Instella-T2I); null = tokens in front of the sequence."""
    projection: Literal["linear", "mlp"] = "linear"
    """Map of the features of tokens in front: linear, behind a norm; mlp, two linear layers without
    norm and biases (LlamaGen)."""
    empty: Literal["learned", "stored"] = "learned"
    """Stand-in for no text. learned: vectors of each position, in padding too; stored: features
    that are drawn once and never trained, for samples without text alone (LlamaGen)."""
    mask: bool = False
    """Attention hides padding, from the rows of guidance without a condition as well (LlamaGen);
    kind=autoregressive alone. false: padding is looked at."""
    align: Literal["given", "end"] = "given"
    """Places of a text: as its features come, or the last ones, behind the padding (LlamaGen)."""
    class_token: bool = True
    """A token of the class and the pooled features behind the text; false: the last position of the
    text predicts the first code (LlamaGen)."""
    textless: Literal["counted", "ignored"] = "counted"
    """Part of samples without any text in loss and metrics; ignored: the mean is that of the
    others (LlamaGen's flag of valid samples)."""

    @model_validator(mode="after")
    def _in_front(self) -> TextConditionConfig:
        if self.layers is None:
            return self
        own = {"projection": "linear", "empty": "learned", "mask": False}
        own |= {"align": "given", "class_token": True}
        for name, value in own.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"{name}={getattr(self, name)} is of text in front of the tokens; with "
                    f"layers={self.layers} blocks read it: leave one out"
                )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """[M, C], or [K, M, C] of several layers."""
        return (*(() if self.layers is None else (self.layers,)), self.length, self.dim)


class ConditionConfig(Config):
    """Conditions that a generator reads; a sample may come with any of them, or none."""

    classes: int | None = Field(default=None, ge=0, le=2**20)
    """Number of classes; 0 = none are read; null = those of the training data."""
    text: TextConditionConfig | None = None
    """Shape of the text features [M, C] that are read; null = none."""
    pooled: int | None = Field(default=None, ge=1, le=2**14)
    """Width C of the pooled text features that are read; null = none."""
    pooled_norm: bool = True
    """Layer norm of the pooled features before their projection; false: none (STAR)."""
    score: ScoreConfig | None = None
    """A score of each sample that the trunk mmdit reads beside the pooled features; null = none."""
    first_frames: int | None = Field(default=None, ge=1, le=2**14)
    """First frames of a clip that are known: the tokens of these frames, the last of them held to
    the end of the clip, stand in front of the condition's other tokens (LARP's frame prediction);
    kind=autoregressive alone; null = none. Guidance does not drop them."""
    dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples that train without their condition, for classifier-free guidance."""
    null_class: bool = True
    """The table of classes has a row for samples without one; false: every sample needs a class,
    and there is no guidance (LlamaGen with a class dropout of 0)."""

    @model_validator(mode="after")
    def _can_drop(self) -> ConditionConfig:
        if not self.null_class and (self.dropout or self.classes == 0):
            raise InputError(
                f"null_class=false with dropout={self.dropout}, classes={self.classes}: there is "
                "nothing to train without a class; expected dropout=0 and classes"
            )
        return self


def check_in_front(config: ConditionConfig, reader: str) -> None:
    """InputError for options of a text that generators which read it in front do not follow.

    Args:
        reader: what reads, for the message ("trunk=bert").
    """
    text = config.text
    if text is not None and (text.layers is not None or text.textless != "counted"):
        name = "layers" if text.layers is not None else "textless"
        raise InputError(
            f"{reader} reads all texts in front of its tokens; leave out condition.text.{name}, or "
            "use kind=autoregressive"
        )


class ConditionTokens(nn.Module):
    """Tokens [B, count, W] of conditions: M of the text, if tokens are made of it, and one of the
    rest.

    The last token is the embedding of the class (or of "null") plus the projected pooled features.
    Text is normalized and projected; positions that hold no text, and all those of samples without
    a condition, are learned vectors, so that no attention mask is needed. Options of the text
    (`TextConditionConfig`) make its tokens those of LlamaGen instead.
    """

    def __init__(self, config: ConditionConfig, width: int) -> None:
        super().__init__()
        if config.score is not None:
            raise InputError("condition.score is read by trunk=mmdit alone; set it to null")
        self.config = config
        text = None if config.text is None or config.text.layers is not None else config.text
        last = text is None or text.class_token
        self.count = last + (0 if text is None else text.length)
        self.label = None
        if last:  # the last row is the null class, and all there is without classes
            self.label = nn.Embedding((config.classes or 0) + config.null_class, width)
        elif config.classes or config.pooled is not None:
            raise InputError(
                f"condition.text.class_token=false with classes={config.classes}, "
                f"pooled={config.pooled}: nothing would read them; set classes=0 and pooled=null"
            )
        self.pooled = None
        if config.pooled is not None:
            project = _projection if config.pooled_norm else nn.Linear
            self.pooled = project(config.pooled, width)
        self.text = None
        if text is not None:
            project = _projection if text.projection == "linear" else caption_projection
            self.text = project(text.dim, width)
            if text.empty == "stored":
                self.register_buffer("empty", stored_empty(text.length, text.dim))
            else:
                self.no_text = nn.Parameter(torch.randn(text.length, width) * 0.02)

    def forward(self, condition: Condition, batch: int, null: Tensor | None = None) -> Tensor:
        """Tokens [B, count, W].

        Args:
            condition: on the device of the weights; fields that are None are not known.
            null: [B] bool, samples that lose their condition besides those of `condition.null`.
        """
        device = next(self.parameters()).device
        null = nulled(condition, null, device)
        if self.label is None:
            return self._text(condition, batch, null)
        token = self._label(condition.label, batch, null)
        if self.pooled is not None and condition.pooled is not None:
            pooled = self.pooled(condition.pooled.to(token.dtype))
            token = token + (pooled if null is None else pooled * ~null[:, None])
        if self.text is None:
            return token[:, None]
        return torch.cat([self._text(condition, batch, null), token[:, None]], dim=1)

    def seen(self, condition: Condition, batch: int) -> SeenText | None:
        """Tokens that may be looked at; None = all, by config."""
        text = self.config.text
        if self.text is None or not text.mask:
            return None
        mask = condition.text_mask
        if condition.text is None or mask is None:
            mask = torch.ones(batch, text.length, dtype=torch.bool)
        elif text.align == "end":
            mask = moved_to_end(condition.text, mask.bool())[1]
        mask = mask.to(next(self.parameters()).device).bool()
        return seen_slots(mask, self.count - text.length)

    def _label(self, label: Tensor | None, batch: int, null: Tensor | None) -> Tensor:
        nothing = self.config.classes or 0
        if not self.config.null_class:
            return self._own_class(label, null)
        if label is None or nothing == 0:
            label = torch.full((batch,), nothing, device=self.label.weight.device)
        else:
            unknown = label < 0 if null is None else null | (label < 0)
            label = torch.where(unknown, nothing, label)
        return self.label(label)

    def _own_class(self, label: Tensor | None, null: Tensor | None) -> Tensor:
        if label is None or (label < 0).any() or (null is not None and null.any()):
            raise InputError(
                "condition.null_class=false: this generator knows no sample without a class; give "
                "each a label, and sample with guidance=1"
            )
        return self.label(label)

    def _text(self, condition: Condition, batch: int, null: Tensor | None) -> Tensor:
        config, text, mask = self.config.text, condition.text, condition.text_mask
        if text is not None and mask is not None and config.align == "end":
            text, mask = moved_to_end(text, mask.bool())
        if config.empty == "stored":
            empty = self.empty.expand(batch, -1, -1)
            text = empty if text is None else text.to(empty.dtype)
            return self.text(
                text if null is None else torch.where(null[:, None, None], empty, text)
            )
        if text is None:
            return self.no_text.expand(batch, -1, -1)
        tokens = self.text(text.to(self.no_text.dtype))
        seen = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if mask is not None:
            seen = seen & mask
        if null is not None:
            seen = seen & ~null[:, None]
        return torch.where(seen[..., None], tokens, self.no_text)


class LayerTexts(nn.Module):
    """Text for the blocks of a transformer; samples without one have the empty text.

    The empty text is what a language model makes of '': nothing at all (a tokenizer without
    begin token, as Instella-T2I's), unless `fill` gives features. They are saved with the model.
    """

    def __init__(self, config: TextConditionConfig) -> None:
        super().__init__()
        self.register_buffer("empty", torch.zeros(config.shape))
        self.register_buffer("empty_mask", torch.zeros(config.length, dtype=torch.bool))

    @torch.no_grad()
    def fill(self, features: Tensor, mask: Tensor) -> None:
        """Set the empty text: features [K, M, C], and which positions count [M] bool."""
        check_shape("empty text", features[None], tuple(self.empty.shape))
        self.empty.copy_(features)
        self.empty_mask.copy_(mask)

    def forward(self, condition: Condition, batch: int, null: Tensor | None = None) -> LayerText:
        """Texts of B samples; arguments as of `ConditionTokens`."""
        empty = self.empty.expand(batch, *self.empty.shape)
        nothing = self.empty_mask.expand(batch, -1)
        if condition.text is None:
            return LayerText(empty, nothing)
        text, mask = condition.text.to(self.empty.dtype), condition.text_mask
        mask = torch.ones_like(nothing) if mask is None else mask.bool()
        null = nulled(condition, null, self.empty.device)
        if null is None:
            return LayerText(text, mask)
        features = torch.where(null[:, None, None, None], empty, text)
        return LayerText(features, torch.where(null[:, None], nothing, mask))


def nulled(condition: Condition, null: Tensor | None, device: torch.device) -> Tensor | None:
    """[B] bool: samples without a condition by `condition.null` or `null`; None = none."""
    nulls = [one.to(device) for one in (condition.null, null) if one is not None]
    return None if not nulls else torch.stack(nulls).any(0)


def read_condition(batch: Batch, config: ConditionConfig) -> Condition:
    """The condition that a generator of this config reads of a batch.

    Unlabeled samples have label -1; where the class is all that is read, they are `null` as well.
    Raises ConfigError if text features are read and the batch has none.
    """
    given = Condition() if batch.condition is None else batch.condition
    wants = {
        "text": (config.text, "cache them with task.text"),
        "pooled": (config.pooled, "cache them with a text encoder of text.pooled"),
    }
    for name, (wanted, remedy) in wants.items():
        if wanted is not None and getattr(given, name) is None:
            raise ConfigError(
                f"condition.{name}: this generator reads it, and the tokens have none; {remedy}, "
                f"or set condition.{name}=null"
            )
    label = batch.label if config.classes else None
    if config.first_frames is not None and batch.prefix is None:
        raise ConfigError(
            f"condition.first_frames={config.first_frames}: this generator reads the tokens of "
            "known frames, and the data have none; cache them with task.first_frames="
            f"{config.first_frames}, or set condition.first_frames=null"
        )
    prefix = None if config.first_frames is None else batch.prefix
    if config.text is None and config.pooled is None:
        return Condition(label=label, prefix=prefix, null=None if label is None else label < 0)
    return Condition(
        label=label,
        text=None if config.text is None else given.text,
        text_mask=None if config.text is None else given.text_mask,
        pooled=None if config.pooled is None else given.pooled,
        score=None if config.score is None else given.score,
        prefix=prefix,
    )


def check_condition(
    condition: Condition,
    config: ConditionConfig,
    samples: int,
    spec: TokenSpec | None = None,
    takes_known: bool = False,
) -> None:
    """ValueError, one line, for a condition that a generator of this config cannot read.

    Args:
        spec: of its tokens, for known ones. takes_known: it takes over known codes.
    """
    names = ("label", "null", "text", "text_mask", "pooled", "score")
    given = {name: getattr(condition, name) for name in names}
    for name, value in given.items():
        if value is not None and len(value) != samples:
            raise InputError(
                f"condition.{name} is of {len(value)} samples, index of {samples}; give one each"
            )
    unread = () if takes_known else ("known", "known_mask")
    unread = ("frames", *unread, *(("prefix",) if config.first_frames is None else ()))
    for name in unread:
        if getattr(condition, name) is not None:
            raise InputError(f"this generator cannot continue condition.{name}; leave it out")
    if config.first_frames is not None:
        check_known_frames(condition.prefix, config.first_frames, spec, samples)
    if takes_known:
        check_known(condition.known, condition.known_mask, spec, samples)
    _check_labels(condition, config.classes or 0)
    check_shape("text", condition.text, None if config.text is None else config.text.shape)
    check_shape(
        "text_mask", condition.text_mask, None if config.text is None else (config.text.length,)
    )
    check_shape("pooled", condition.pooled, None if config.pooled is None else (config.pooled,))
    check_shape("score", condition.score, None if config.score is None else ())


def _check_labels(condition: Condition, classes: int) -> None:
    label = condition.label
    if label is None or not len(label):
        return
    if not classes:
        raise InputError("this generator was trained without classes; leave labels out")
    low, high = int(label.min()), int(label.max())
    if low < UNLABELED or high >= classes:
        raise InputError(
            f"labels lie in {low}..{high}; expected 0..{classes - 1}, or {UNLABELED} for no class"
        )


def check_shape(name: str, value: Tensor | None, expected: tuple[int, ...] | None) -> None:
    """InputError unless condition.name [B, ...] is None or has this shape for each sample; an
    expected None: this generator does not read it."""
    if value is None:
        return
    if expected is None:
        raise InputError(f"this generator was trained without condition.{name}; leave it out")
    if tuple(value.shape[1:]) != expected:
        raise InputError(
            f"condition.{name} has shape {list(value.shape)}; expected "
            f"{[len(value), *expected]}: another text encoder?"
        )


def _projection(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
