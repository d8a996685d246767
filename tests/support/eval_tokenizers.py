"""Tokenizers whose numbers are known without training."""

from types import SimpleNamespace

import torch
from torch import nn

from vistok.core.records import Latents, Quantized
from vistok.quantizers.nearest import nearest_codes
from vistok.tokens import Tokens, TokenSpec


class PixelTokenizer(nn.Module):
    """Stores every pixel's three bytes: reconstruction is exact."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=(size, size))
        self.shape = SimpleNamespace(sides=(size, size))

    def spec(self) -> TokenSpec:
        return TokenSpec(blocks=(self.config.image_size,), vocab=(256,) * 3, dim=3)

    def encode(self, pixels):
        indices = (pixels * 255).round().long().flatten(2).transpose(1, 2)
        return Tokens.of(self.spec(), indices)

    def decode(self, tokens):
        return (tokens.indices.float() / 255).transpose(1, 2).unflatten(2, self.config.image_size)


class PatchTokenizer(nn.Module):
    """Each patch becomes the nearest color of a regular 8x8x8 grid and is decoded flat, so that
    a farther code is a worse image: pFID must grow with alpha and delta."""

    def __init__(self, size: int, patch: int = 2) -> None:
        super().__init__()
        self.config, self.patch, self.side = SimpleNamespace(image_size=(size, size)), patch, size
        self.shape = SimpleNamespace(sides=(size, size))
        level = torch.arange(8) / 7
        self.codes = torch.stack(torch.meshgrid(level, level, level, indexing="ij"), -1).view(-1, 3)
        self.quantizer = self

    def spec(self) -> TokenSpec:
        count = (self.side // self.patch) ** 2
        return TokenSpec(blocks=((count,),), vocab=(512,), dim=3, prefix="token")

    def latents(self, pixels):
        values = nn.functional.avg_pool2d(pixels, self.patch).flatten(2).transpose(1, 2)
        return Latents(values, ((values.shape[1],),))

    def quantize(self, latents):
        near = self.neighbours(latents.values[:, :, None], 1)[..., 0, :].flatten(2)
        values = self.codes[near[..., 0]]
        return Quantized(values, values, near, latents.values[:, :, None])

    def neighbours(self, queries, count):
        near = nearest_codes(queries.reshape(-1, 3), self.codes, count)
        return near.view(*queries.shape[:3], -1, 1)

    def encode(self, pixels):
        return Tokens.of(self.spec(), self.quantize(self.latents(pixels)).indices)

    def values(self, tokens):
        return self.codes[tokens.indices[..., 0].long()] * tokens.kept()[..., None]

    def decode(self, tokens):
        decoded = self.values(tokens)
        grid = decoded.transpose(1, 2).unflatten(2, (self.side // self.patch, -1))
        return nn.functional.interpolate(grid, scale_factor=self.patch)


class ClipTokenizer(nn.Module):
    """Stores every byte of a clip, or its highest `keep` bits."""

    def __init__(self, frames: int, size: int, keep: int = 8) -> None:
        super().__init__()
        self.step = 2 ** (8 - keep)
        self.config = SimpleNamespace(image_size=(size, size))
        self.shape = SimpleNamespace(sides=(frames, size, size))

    def spec(self) -> TokenSpec:
        return TokenSpec(blocks=(self.shape.sides,), vocab=(256,) * 3, dim=3)

    def encode(self, pixels):
        indices = (pixels * 255).round().long().flatten(2).transpose(1, 2)
        return Tokens.of(self.spec(), indices // self.step * self.step)

    def decode(self, tokens):
        return (tokens.indices.float() / 255).transpose(1, 2).unflatten(2, self.shape.sides)
