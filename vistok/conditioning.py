"""Texts of samples -> the condition that encoders and decoders read; checks of conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.layers.text import TextInputConfig

PARTS = ("encoder", "decoder")
TEXT_ENCODER = "text_encoder"  # among the frozen networks that a saved tokenizer names
NO_TEXTS = (
    "data: this tokenizer reads text, and the data give none; use texts of the data (text=txt of "
    "webdataset, text_column of huggingface), or data.caption for one of each class"
)


def check_texts(text: TextEncoderConfig | None, reading: Mapping[str, TextInputConfig]) -> None:
    """ValueError for texts that would otherwise fail at the first batch.

    Args:
        reading: the parts that read text, and how.
    """
    if text is not None and not reading:
        raise InputError(
            "text names a text encoder, and no part reads text; set encoder.text or decoder.text, "
            "or leave text out"
        )
    for name, how in reading.items():
        if text is not None and how.length != text.length:
            raise InputError(
                f"{name}.text.length={how.length}, but text.length={text.length}; give both the "
                "same"
            )
    if len({how.dim for how in reading.values()}) > 1:
        dims = ", ".join(f"{name}.text.dim={how.dim}" for name, how in reading.items())
        raise InputError(f"{dims}: one text encoder has one width; give both the same")


class ReadsText:
    """Part of a tokenizer: from texts to a Condition, by the frozen encoder that its config names,
    and from the frame rates of clips.

    The encoder is loaded when it is first needed and is no part of the saved model.
    """

    config: Any
    _text_encoder: list[Any]  # in a list, so that it is no submodule
    text_sha256: str | None = None
    """Weights of the text encoder that was used, or that a saved tokenizer was trained with."""

    def condition(self, texts: Sequence[str], null: Tensor | None = None) -> Condition:
        """The condition of B texts; `null` [B] bool: samples that see none of it."""
        if self.config.text is None:
            raise InputError(
                "this tokenizer's config names no text encoder; give tokenizer.text, or features: "
                "Condition(text=[B, M, C])"
            )
        device = next(self.parameters()).device
        features = self.text_encoder.to(device).condition(texts)
        return replace(features, pooled=None, null=null)

    def condition_of(self, batch: Batch, draws: Draws | None = None) -> Condition | None:
        """Condition of a batch of data: its texts, its frame rates, or both; None for a tokenizer
        that reads neither.

        Samples that `draws.null` names see no text. ConfigError if the data give none.
        """
        fps = batch.fps if self.reads_fps else None
        if self.config.text is None:
            return None if fps is None else Condition(fps=fps)
        if batch.text is None:
            raise ConfigError(NO_TEXTS)
        return replace(self.condition(batch.text, None if draws is None else draws.null), fps=fps)

    @property
    def reads_fps(self) -> bool:
        """True if encoder or decoder look at the frame rate of clips."""
        return any(getattr(getattr(self, part), "reads_fps", False) for part in PARTS)

    @property
    def text_encoder(self) -> Any:
        """Texts -> features; loaded when it is first needed."""
        if not self._text_encoder:
            self.use_text_encoder(TextEncoder(self.config.text))
        return self._text_encoder[0]

    def use_text_encoder(self, encoder: Any) -> None:
        """Use this text encoder: several tokenizers may share one.

        Raises ConfigError for other weights than those that this tokenizer was saved with.
        """
        sha256 = getattr(encoder, "sha256", None)  # blank ones of a dry run have none
        if sha256 is not None:
            if self.text_sha256 not in (None, sha256):
                raise ConfigError(
                    f"text.path={self.config.text.path}: weights {sha256[:12]}; this tokenizer was "
                    f"trained with {self.text_sha256[:12]}: use the same text encoder"
                )
            self.text_sha256 = sha256
        self._text_encoder = [encoder]
