"""An image encoded by a tokenizer: encoded once, decoded once for each length that is looked at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.demo.lengths import bits_at
from vistok.demo.measure import Quality, Squeezed, quality, squeezed
from vistok.demo.models import Model
from vistok.tokens import Tokens
from vistok.tokens.codec import Codec

if TYPE_CHECKING:
    from PIL.Image import Image

_KEPT = 64  # decoded lengths of an image that a session remembers


@dataclass(frozen=True)
class Decoded:
    """A prefix, what it decodes to, and its numbers."""

    tokens: Tokens  # one image's
    length: int
    positions: int
    pixels: Tensor  # [3, H, W] in 0..1
    quality: Quality
    bits: int | None  # None of continuous tokens
    file: bytes | None  # a .vtk file; None of continuous tokens


@dataclass
class Encoded:
    """An image as one tokenizer sees it, with what was made of it so far."""

    model: Model
    original: Tensor  # [3, H, W] in 0..1, cropped to the tokenizer's size
    tokens: Tokens  # whole
    queries: Tensor | None  # [1, L, P, d]: vectors that the codes were searched for
    _decoded: OrderedDict[int, Decoded] = field(default_factory=OrderedDict)
    _squeezed: dict[tuple[str, int], Squeezed] = field(default_factory=dict)

    def at(self, length: int) -> Decoded:
        """The image from a prefix of `length`; decoded once."""
        if length not in self._decoded:
            self._decoded[length] = self._decode(length)
            while len(self._decoded) > _KEPT:
                self._decoded.popitem(last=False)
        return self._decoded[length]

    def squeezed(self, format: str, most: int) -> Squeezed:
        """The best file of JPEG or WebP of at most `most` bytes; searched for once."""
        if (format, most) not in self._squeezed:
            self._squeezed[format, most] = squeezed(self.original, most, format)
        return self._squeezed[format, most]

    def _decode(self, length: int) -> Decoded:
        spec = self.model.spec
        cut = self.tokens if spec.prefix == "none" else self.tokens.prefix(length)
        pixels = self.model.tokenizer.decode(cut)[0].float().cpu()
        bits, file = None, None
        if spec.vocab:
            bits = bits_at(spec, length)
            file = vtk(self.model, cut)
        return Decoded(
            cut,
            length,
            spec.positions_in(length),
            pixels,
            quality(pixels, self.original),
            bits,
            file,
        )


def vtk(model: Model, tokens: Tokens) -> bytes:
    """The .vtk file of one image's tokens."""
    block = model.tokenizer.block_spec
    codec = Codec(model.spec, model.codes_sha256, name=model.name, block=block)
    return codec.write(tokens)[0]


@torch.no_grad()
def encode(model: Model, image: Image) -> Encoded:
    """Crop an image to a tokenizer's size and encode it."""
    tokenizer = model.tokenizer
    pixels = tokenizer.preprocess(image)
    quantized = tokenizer.quantize(tokenizer.latents(pixels.to(next(tokenizer.parameters()).dtype)))
    tokens = tokenizer.tokens(quantized).to("cpu")
    queries = None if quantized.queries is None else quantized.queries.cpu()
    return Encoded(model, pixels[0].cpu(), tokens, queries)


def codes_of(encoded: Encoded, what: str) -> Tensor:
    """Indices [1, L, F] of an image; InputError for continuous tokens, which have no codes."""
    if encoded.tokens.indices is None:
        raise InputError(
            f"{encoded.model.name}: its tokens are continuous, so there is no code to {what}"
        )
    return encoded.tokens.indices.long()
