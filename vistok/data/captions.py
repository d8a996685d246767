"""Texts of samples: one that lies beside the image, or a caption made of the class name.

A sample that should have a text and has none is a bad sample, never an empty text: a tokenizer or
generator that reads texts would learn that nothing was said.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import field_validator

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.data.base import BadSample, DataError

_CLASS = "{class}"


class CaptionConfig(Config):
    """Base of the data configs whose samples have classes."""

    caption: str | None = None
    """Text of every sample, {class} being the name of its class, such as "A photo of a {class}.";
    null: no text (or the data set's own)."""

    @field_validator("caption")
    @classmethod
    def _known(cls, caption: str | None) -> str | None:
        others = set(re.findall(r"\{.*?\}", caption or "")) - {_CLASS}
        if others:
            raise InputError(f"'{min(others)}' is no known placeholder; expected {_CLASS} alone")
        return caption


class Caption:
    """Makes the text of each sample of one data set from `config.caption`.

    Raises DataError if it names classes that the data set does not have.
    """

    def __init__(self, config: CaptionConfig, classes: tuple[str, ...]) -> None:
        self.template, self.classes = config.caption, classes
        if self.needs_class and not classes:
            raise DataError(
                f"data.caption: '{self.template}' names the class, and this data set has no "
                f"classes; label it, or leave {_CLASS} out"
            )

    @property
    def given(self) -> bool:
        """True if the config has a caption."""
        return self.template is not None

    @property
    def needs_class(self) -> bool:
        """True if the caption names the class."""
        return self.given and _CLASS in self.template

    def __call__(self, label: int, name: str) -> str | None:
        """The text of a sample of class `label`; None without a caption.

        BadSample `name` if it is unlabeled and the caption names the class.
        """
        if not self.needs_class:
            return self.template
        if not 0 <= label < len(self.classes):
            raise BadSample(name, f"has no label, which data.caption='{self.template}' names")
        return self.template.replace(_CLASS, self.classes[label])

    def record(self) -> dict[str, Any]:
        """The part of a data record about texts: {} without a caption."""
        return {"text": {"caption": self.template}} if self.given else {}


def own_text(text: Any, where: str) -> str:
    """The text that came with a sample, trimmed; ValueError if it is none, or empty.

    Args:
        text: str, UTF-8 bytes, or None. where: what messages call its place.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8 ({error.reason})") from None
    if text is None:
        raise InputError(f"has no text: no {where}")
    if not isinstance(text, str):
        raise InputError(f"{where} holds {type(text).__name__}; expected a text")
    text = text.strip()
    if not text:
        raise InputError(f"has no text: {where} is empty")
    return text


def one_source(config: CaptionConfig, key: str) -> None:
    """ValueError if texts are asked for twice: by `caption` and by the option `key`."""
    own = getattr(config, key)
    if own is not None and config.caption is not None:
        raise InputError(f"{key}={own} and caption={config.caption} both give texts; drop one")
