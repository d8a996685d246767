"""Causal tokenizers: any 1 + k x stride frames, images as clips of one frame, clips in pieces.

Part of `Tokenizer`. Each latent frame is a block of tokens. If blocks depend on their frames and
those before alone (`streams`), the tokens of a clip begin with those of every shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vistok import rates
from vistok.core.errors import InputError
from vistok.core.shapes import Shape, cells, check_pixels, latent_frames
from vistok.layers.causal_conv import Stream
from vistok.runtime.modes import evaluating
from vistok.runtime.precision import of_weights
from vistok.tokens import Tokens, TokenSpec


class Causal:
    """Clips of several lengths, whole and in pieces, of a causal `Tokenizer`."""

    @property
    def frame_stride(self) -> int | None:
        """Frames per block of tokens of a causal tokenizer, which takes 1 + k x stride of them for
        any k; None: it takes the shape of its config only."""
        strides = (self.input_space.frame_stride, self.encoder.frame_stride)
        known = None not in (*strides, self.output_space.frame_stride)
        if not known or not (self.decoder.causal or self.decoder.any_blocks):
            return None
        return strides[0] * strides[1]

    @property
    def streams(self) -> bool:
        """True if clips can come in pieces: no block depends on the frames after its own."""
        return self.frame_stride is not None and self.encoder.causal and self.decoder.causal

    def check_frames(self, frames: int) -> int:
        """`frames` if clips of so many can be encoded; InputError says which counts work."""
        stride = self.frame_stride
        if stride is None and frames == (self.shape.frames or 1):
            return frames
        if stride is None:
            raise InputError(
                f"a clip of {frames} frames: this tokenizer takes {self.shape.frames or 1} only"
            )
        latent_frames(frames, stride, f"a clip of {frames} frames: this causal tokenizer")
        return frames

    def spec_of(self, frames: int | None) -> TokenSpec:
        """The spec of the tokens of clips of so many frames; None = those of the config."""
        spec = self.spec()
        if frames is None or frames == self.shape.frames:
            return spec
        self.check_frames(frames)
        if self.frame_stride is None:
            return spec
        count = 1 + (frames - 1) // self.frame_stride
        return spec.model_copy(update={"blocks": spec.blocks[:1] * count})

    @property
    def block_spec(self) -> TokenSpec | None:
        """The spec of one block of tokens, of which streams are made; None: it has no streams."""
        return self.spec_of(1) if self.streams else None

    def spec_with(self, positions: int) -> tuple[TokenSpec, tuple[int, int, int]]:
        """(spec, size of the pixels) of so many token positions of a causal tokenizer."""
        spec, frames = self.spec(), self.shape.frames or 1
        if self.frame_stride is not None:
            blocks = positions // cells(spec.blocks[0])
            frames = 1 + (blocks - 1) * self.frame_stride
            spec = self.spec_of(frames)
        elif self.any_count and positions != spec.length:
            spec = self.recounted(positions)
        return spec, (frames, *self.shape.image_size)

    def shape_of(self, pixels: Tensor) -> Shape:
        """The shape that pixels [B, 3, *sides] have to have."""
        if self.frame_stride is None or pixels.ndim != 5:
            return rates.shape_of(pixels, self.shape, self.encoder.any_frames)
        frames = self.check_frames(pixels.shape[2])
        return Shape(self.shape.channels, (frames, *self.shape.image_size))

    def as_clips(self, pixels: Tensor) -> Tensor:
        """Images [B, 3, H, W] for a causal tokenizer -> clips of one frame; others as they are."""
        return pixels[:, :, None] if self.frame_stride is not None and pixels.ndim == 4 else pixels

    def own_tokens(self, tokens: Tokens) -> Tokens:
        """The tokens in this tokenizer's grouping of digits; InputError unless it decodes them: its
        own blocks, or any number of them if it is causal."""
        tokens.check()
        own = self.spec()
        if tokens.spec.vocab != own.vocab and tokens.indices is not None:
            tokens = tokens.regroup(own.vocab)
        any_number = self.frame_stride is not None and set(tokens.spec.blocks) == {own.blocks[0]}
        if self.any_count and len(tokens.spec.blocks) == 1:
            any_number = bool(self.encoder.check_count(tokens.spec.length))
        if tokens.spec.blocks != own.blocks and not any_number:
            raise InputError(
                f"tokens have blocks {tokens.spec.blocks}; this tokenizer decodes {own.blocks}"
            )
        return tokens

    @torch.no_grad()
    def encode_stream(self, frames: Iterable[Tensor], blocks: int = 1) -> Iterator[Tokens]:
        """Pieces [B, 3, T, H, W] of a clip, of any lengths -> its tokens, piece by piece.

        Together they are the tokens of `encode` of the whole clip; memory does not grow with it,
        but for attention over time without a `time_window`.

        Args:
            blocks: of tokens that are made at once; more are faster and take more memory.
        Raises InputError for a tokenizer that is not causal, for pieces that are no floats in 0..1
        of its sides, and at the end of a clip whose number of frames does not fit.
        """
        self._check_streams("encode_stream", blocks)
        stream, kept, seen = Stream(), None, 0
        for piece in frames:
            self._check_piece(piece, kept)
            kept = piece if kept is None else torch.cat([kept, piece], 2)
            wanted = blocks * self.frame_stride + (1 - self.frame_stride if not seen else 0)
            while kept.shape[2] >= wanted:
                part, kept = kept[:, :, :wanted], kept[:, :, wanted:].clone()
                seen += wanted
                yield self._encoded(part, stream)
                wanted = blocks * self.frame_stride
        left = 0 if kept is None else kept.shape[2]
        if left:
            self.check_frames(seen + left)
            yield self._encoded(kept, stream)
        elif not seen:
            raise InputError("encode_stream: no frames; expected pieces [B, 3, T, H, W]")

    def _check_piece(self, piece: Tensor, before: Tensor | None) -> None:
        """InputError unless a piece [B, 3, T, H, W] can follow the one before it."""
        shape = self.shape
        if piece.ndim == 5:
            shape = Shape(shape.channels, (piece.shape[2], *shape.image_size))
        check_pixels(piece, shape)
        if before is not None and len(piece) != len(before):
            raise InputError(
                f"encode_stream: a piece of {len(piece)} clips behind one of {len(before)}; "
                "expected the same clips in every piece"
            )

    def _encoded(self, pixels: Tensor, stream: Stream) -> Tokens:
        weight = next(self.parameters())
        pixels = pixels.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        with evaluating(self), of_weights(self.encoder):
            found = self.encoder(self.input_space(pixels, stream=stream), stream=stream)
            quantized = self.quantize(found)
        return self.tokens(quantized)

    @torch.no_grad()
    def decode_stream(self, pieces: Iterable[Tokens], blocks: int = 1) -> Iterator[Tensor]:
        """Tokens of whole blocks, in order -> their frames [B, 3, T, H, W] in 0..1 as they come.

        The first block gives one frame, each further one `frame_stride` of them; together they are
        `decode` of all the tokens. Arguments and errors as of `encode_stream`; InputError too for
        tokens that keep some of their blocks only.
        """
        self._check_streams("decode_stream", blocks)
        stream, size = Stream(), self.spec().block_lengths[0]
        for tokens in pieces:
            tokens = self.own_tokens(tokens)
            if not bool(tokens.kept().all()):
                raise InputError(
                    "decode_stream: these tokens are a prefix of their blocks; expected whole "
                    "ones: give the blocks that are kept, or call decode"
                )
            for values in self.values(replace(tokens, keep=None)).split(blocks * size, 1):
                with evaluating(self), of_weights(self.decoder):
                    found = self.decoder(values, stream=stream).estimate
                yield self.output_space.inverse(found, stream=stream).clamp(0, 1)

    def _check_streams(self, name: str, blocks: int) -> None:
        if not self.streams:
            raise InputError(
                f"{name}: tokens of this tokenizer depend on the whole clip, so that clips cannot "
                "come in pieces; expected one of causal_cnn parts"
            )
        if blocks < 1:
            raise InputError(f"{name}: blocks={blocks}; expected 1 or more")
