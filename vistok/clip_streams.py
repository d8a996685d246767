"""Whole clips of causal tokenizers: one stream of blocks of tokens, frame by frame in and out.

The tokens are those of `Tokenizer.encode` of the whole clip, block by block; `Tokenizer` knows how
its networks go on from one piece to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from torch import Tensor

from vistok.chunking import Pad, padded
from vistok.core.errors import InputError
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens, TokenSpec


def streams(tokenizer: Tokenizer, overlap: int | None) -> bool:
    """True if a whole clip is one stream: of a tokenizer that streams, unless windows are asked
    for."""
    windows = overlap is not None or tokenizer.config.chunks is not None
    return tokenizer.streams and not windows


def encode(
    tokenizer: Tokenizer,
    frames: Iterable[Tensor],
    count: int,
    pad: Pad | None = None,
    batch: int = 1,
) -> Tokens:
    """`count` frames [3, H, W] in 0..1, as they come -> tokens of one block per sample.

    Args:
        pad: what fills the last block; None refuses a clip that does not fill it.
        batch: blocks at a time; more are faster and take more memory.
    Raises InputError, which says the counts that work.
    """
    missing = -(count - 1) % tokenizer.frame_stride
    if missing and pad is None:
        try:
            tokenizer.check_frames(count)
        except InputError as error:
            raise InputError(f"{error}; give --pad repeat or --pad reflect") from None
    pieces = (frame[None, :, None] for frame in _filled(frames, count, missing, pad))
    block = tokenizer.block_spec
    return Tokens.cat([_apart(one, block) for one in tokenizer.encode_stream(pieces, batch)])


def decode(tokenizer: Tokenizer, tokens: Tokens, frames: int, batch: int = 1) -> Iterator[Tensor]:
    """Tokens of one block per sample -> the first `frames` frames [3, H, W] on the CPU.

    batch: blocks at a time, as in `encode`.
    """
    made = 1 + (len(tokens) - 1) * tokenizer.frame_stride
    if not made - tokenizer.frame_stride < frames <= made:
        raise InputError(
            f"{len(tokens)} blocks of a clip of {frames} frames: they make {made}; the file is "
            "damaged"
        )
    left = frames
    groups = (tokens.select(slice(at, at + batch)) for at in range(0, len(tokens), batch))
    blocks = (_together(tokenizer, group) for group in groups)
    for pixels in tokenizer.decode_stream(blocks, batch):
        yield from pixels[0].float().cpu().unbind(1)[:left]
        left -= min(left, pixels.shape[2])


def _apart(tokens: Tokens, block: TokenSpec) -> Tokens:
    """Tokens of one sample of several blocks -> a sample for each block."""
    indices = tokens.indices.unflatten(1, (-1, block.length)).flatten(0, 1)
    return Tokens(block, indices=indices, size=(1, *tokens.size[1:]))


def _together(tokenizer: Tokenizer, tokens: Tokens) -> Tokens:
    """The inverse: a sample for each block -> one sample."""
    spec = tokenizer.spec_of(1 + (len(tokens) - 1) * tokenizer.frame_stride)
    return Tokens(spec, indices=tokens.indices.flatten(0, 1)[None])


def _filled(
    frames: Iterable[Tensor], count: int, missing: int, pad: Pad | None
) -> Iterator[Tensor]:
    """The frames, and behind them `missing` ones that repeat the last or reflect the last ones."""
    last, seen = deque(maxlen=missing + 1), 0
    for frame in frames:
        last.append(frame)
        seen += 1
        yield frame
    if seen != count:
        raise InputError(f"{seen} frames came; expected {count}")
    for place in padded(len(last), len(last) + missing, pad)[len(last) :]:
        yield last[place]
