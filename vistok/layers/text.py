"""Text features as further tokens of a transformer (TA-TiTok, arXiv 2501.07730; TexTok).

Letters: B batch, M text positions, C width of the features, W width of the transformer.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.records import Condition


class TextInputConfig(Config):
    """Input of text features: a projection and a learned table."""

    dim: int = Field(default=768, ge=1, le=2**14)
    """C, width of the text encoder's features."""
    length: int = Field(default=77, ge=1, le=2**14)
    """M, number of positions of a text."""
    padding: Literal["attended", "masked"] = "masked"
    """Padding of short texts: attended like text (TA-TiTok), or masked."""
    optional: bool = True
    """Samples without text (Condition.null, or no condition) attend to none, as if the tokens were
    not there; false: text must be given, the empty string included (TA-TiTok)."""


class TextInput(nn.Module):
    def __init__(self, config: TextInputConfig, width: int, std: float) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Linear(config.dim, width)
        self.table = nn.Parameter(torch.randn(config.length, width) * std)

    def forward(
        self, condition: Condition | None, batch: int, like: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, M, W] in the type of `like`, and which may be looked at [B, M] (None = all).

        Raises ValueError for features of another shape, and for missing ones if text is required.
        """
        config = self.config
        text = None if condition is None else condition.text
        if text is None:
            if not config.optional:
                raise InputError(
                    "this tokenizer reads text and got none; give condition="
                    "tokenizer.condition(texts), with '' for images without a text"
                )
            text = like.new_zeros(batch, config.length, config.dim)
            seen = torch.zeros(batch, config.length, dtype=torch.bool, device=like.device)
            return self._tokens(text, like), seen
        if tuple(text.shape) != (batch, config.length, config.dim):
            raise InputError(
                f"text features have shape {tuple(text.shape)}; expected "
                f"[{batch}, {config.length}, {config.dim}]: another text encoder?"
            )
        seen = None
        if config.padding == "masked" and condition.text_mask is not None:
            seen = condition.text_mask.to(like.device)
        if config.optional and condition.null is not None:
            every = torch.ones(batch, config.length, dtype=torch.bool, device=like.device)
            seen = (every if seen is None else seen) & ~condition.null.to(like.device)[:, None]
        return self._tokens(text.to(like.device), like), seen

    def _tokens(self, text: Tensor, like: Tensor) -> Tensor:
        # The features come from a frozen network: they are inputs, whatever type they have.
        tokens = self.proj(text.to(self.proj.weight.dtype)) + self.table
        return tokens.to(like.dtype)
