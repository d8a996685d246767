"""Discrete codes of images and clips: what they look like (TokenSpec) and the codes (Tokens)."""

from vistok.tokens.spec import TokenSpec
from vistok.tokens.tokens import Tokens, keep_mask

__all__ = ["TokenSpec", "Tokens", "keep_mask"]
