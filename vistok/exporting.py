"""A tokenizer's two directions as modules of tensors alone, for `torch.export`.

    pixels = torch.rand(1, 3, 128, 128)
    encode = torch.export.export(Encode(tokenizer), (pixels,))
    codes = encode.module()(pixels)  # int64 [1, L, F], which `tokenizer.decode` takes, too
    decode = torch.export.export(Decode(tokenizer, length=64), (codes,))

Shapes are those of the example, batch and length included: export once for each that is needed.
Values are not checked; wrong pixels or indices give wrong results.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens


class Encode(nn.Module):
    """pixels [B, 3, *sides] in 0..1 -> indices [B, L, F] int64, or values [B, L, dim] of continuous
    tokens, of the whole sequence; a prefix is the beginning of it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = _evaluated(tokenizer)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.tokenizer.tokens(self.tokenizer.quantize(self.tokenizer.latents(pixels)))
        return tokens.values if tokens.indices is None else tokens.indices.long()


class Decode(nn.Module):
    """What `Encode` gives -> pixels [B, 3, *sides] in 0..1.

    Args:
        length: prefix that is decoded, what follows is not looked at; None = the whole.
    Raises InputError for a decoder that samples, whose noise no exported program has, and for a
    tokenizer in training mode.
    """

    def __init__(self, tokenizer: Tokenizer, length: int | None = None) -> None:
        super().__init__()
        if tokenizer.sampling is not None:
            raise InputError(
                f"decoder.kind={tokenizer.config.decoder.kind} samples: it cannot be exported; "
                "expected a decoder that gives images in one pass"
            )
        if length is not None:
            tokenizer.spec().check_length(length)
        self.tokenizer, self.length = _evaluated(tokenizer), length

    def forward(self, codes: Tensor) -> Tensor:
        tokenizer, spec, keep = self.tokenizer, self.tokenizer.spec(), None
        if self.length is not None and spec.prefix != "none":
            inside = (len(spec.blocks),) if spec.prefix == "per_block" else ()
            keep = torch.full((len(codes), *inside), self.length, device=codes.device)
        held = {"indices": codes} if spec.vocab else {"values": codes}
        return tokenizer.pixels_of(Tokens(spec, keep=keep, **held))


def _evaluated(tokenizer: Tokenizer) -> Tokenizer:
    if tokenizer.training:
        raise InputError("the tokenizer is in training mode; call tokenizer.eval() first")
    return tokenizer
