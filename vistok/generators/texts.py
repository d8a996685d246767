"""From texts to the condition that a generator reads, by the frozen encoder that it learned with.

Whatever a generator was trained on, its config.json names the text encoder of its features: its
config and the sha256 of its weights, as the token cache recorded them ("" of released generators,
which do not say it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.generators.conditioning import ConditionConfig
from vistok.generators.text_streams import StreamReader


class ReadsTexts(nn.Module):
    """Part of a generator: texts -> Condition. The encoder is loaded when it is first needed, and
    is no part of the saved model."""

    config: Any
    text_record: Mapping[str, Any] = {}
    """{"config", "sha256"} of the text encoder; {} if it is not known."""
    _text_encoder: tuple[Any, ...] = ()  # in a tuple, so that it is no submodule

    @property
    def reads_text(self) -> bool:
        """True if it reads features of texts."""
        own: ConditionConfig = self.config.condition
        return own.text is not None or own.pooled is not None

    def text_condition(self, texts: Sequence[str], null: Tensor | None = None) -> Condition:
        """The condition of B texts, on the device of the generator.

        Args:
            null: [B] bool, samples that see none of it.
        Raises InputError, one line, if it reads no text, or its encoder is not known.
        """
        if not self.reads_text:
            raise InputError("this generator reads no text; leave texts out")
        device = next(self.parameters()).device
        return self.trimmed(self.text_encoder.to(device).condition(texts), null)

    def trimmed(self, features: Condition, null: Tensor | None = None) -> Condition:
        """What this generator reads of the features of texts."""
        own: ConditionConfig = self.config.condition
        sequence, pooled = own.text is not None, own.pooled is not None
        if pooled and features.pooled is None:
            raise InputError(
                "condition.pooled: the text encoder gives no pooled features; set text.pooled to "
                "end or projected"
            )
        return Condition(
            text=features.text if sequence else None,
            text_mask=features.text_mask if sequence else None,
            pooled=features.pooled if pooled else None,
            null=null,
        )

    @property
    def text_encoder(self) -> Any:
        """Texts -> features; loaded when it is first needed."""
        if not self._text_encoder:
            if not self.text_record:
                raise InputError(
                    "this generator does not say which text encoder it learned with; name it: "
                    "text.path=FOLDER text.layer=penultimate and so on, or use_text_encoder"
                )
            config = validate(TextEncoderConfig, self.text_record["config"], "text_encoder")
            self.use_text_encoder(TextEncoder(config))
        return self._text_encoder[0]

    def use_text_encoder(self, encoder: Any) -> None:
        """Use this text encoder; what stands for the empty text is set if it is not known yet.

        Raises ConfigError, one line, for other weights than those that this generator learned with.
        """
        known, found = self.text_record.get("sha256", ""), encoder.sha256
        if known and found != known:
            raise ConfigError(
                f"text.path={encoder.config.path}: weights {found[:12]}; this generator was "
                f"trained with {known[:12]}: use the same text encoder"
            )
        for name, own in self.text_record.get("config", {}).items():
            given = getattr(encoder.config, name)
            if name != "path" and given != own:
                raise ConfigError(
                    f"text.{name}={given}: this generator was trained with {name}={own}: use the "
                    "same features"
                )
        self.text_record = encoder.record()
        self._text_encoder = (encoder,)
        if not self.knows_empty:
            device = next(self.parameters()).device
            self.fill_empty(encoder.to(device).condition([""]))

    # -- the empty text -------------------------------------------------------------------------

    @property
    def _readers(self) -> list[StreamReader]:
        """The modules that keep features of the empty text."""
        return [module for module in self.modules() if isinstance(module, StreamReader)]

    @property
    def knows_empty(self) -> bool:
        """True unless features of the empty text stand for no condition, and are not set."""
        return all(reader.knows_empty for reader in self._readers)

    @torch.no_grad()
    def fill_empty(self, features: Condition) -> None:
        """Set the features of the empty text, [1, ...] each, where they stand for no condition."""
        for reader in self._readers:
            reader.fill_empty(self.trimmed(features))


def read_text_record(data: Any, source: str) -> dict[str, Any]:
    """A record as config.json holds it, None standing for none; ConfigError for anything else."""
    if data is None:
        return {}
    good = isinstance(data, Mapping) and set(data) == {"config", "sha256"}
    if not good or not isinstance(data["sha256"], str):
        raise ConfigError(f"{source}: text_encoder={str(data)[:60]!r}: expected its config, sha256")
    config = validate(TextEncoderConfig, data["config"], source, ("text_encoder", "config"))
    return {"config": config.model_dump(mode="json"), "sha256": data["sha256"]}
