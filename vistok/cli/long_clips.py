"""Whole videos of any length: read frame by frame, encoded in windows, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vistok.cli.running import computing


def encode_whole(
    path: str,
    tokenizer: Any,
    *,
    overlap: int | None = None,
    pad: str | None = None,
    resize: str = "crop",
    length: int | None = None,
    condition: Any = None,
    batch: int = 4,
    precision: str = "fp32",
) -> tuple[Any, Any, float, str]:
    """(tokens of each window or block, their facts, frames per second, remarks on the file).

    Of a file with several parts (joined recordings, damage) the longest is encoded.
    """
    import numpy as np
    from PIL import Image

    from vistok import chunking, clip_streams, rates
    from vistok.data.decode.images import to_tensor
    from vistok.data.decode.video import clips
    from vistok.data.preprocessing import fit
    from vistok.tokens.labels import Chunked

    size = tokenizer.shape.image_size

    def take(index: Any) -> tuple[Any, Any, float, str]:
        start, stop = max(index.parts, key=lambda part: part[1] - part[0])
        frames = clips.frames(path, index, np.arange(start, stop))
        fitted = (to_tensor(fit(Image.fromarray(f), size, resize)).float() / 255 for f in frames)
        with computing(tokenizer, precision):
            if clip_streams.streams(tokenizer, overlap):
                tokens = clip_streams.encode(tokenizer, fitted, stop - start, pad, batch)
                chunked = Chunked(stop - start, 0, len(tokens), stream=True)
                return tokens, chunked, index.fps, index.remarks
            places = chunking.Chunking.of(tokenizer, stop - start, overlap, index.fps)
            timed = rates.of_clips(tokenizer, condition, index.fps)
            tokens = chunking.encode(tokenizer, fitted, places, pad, length, timed, batch=batch)
        return tokens, places.record(), index.fps, index.remarks

    return clips.robust(take, clips.probe(path), lambda: clips.probe(path, decode=True), path)


def decode_whole(
    record: Any,
    tokenizer: Any,
    condition: Any,
    *,
    seed: int,
    sampling: Any,
    batch: int,
    precision: str,
    fps: float | None = None,
) -> Iterator[Any]:
    """The frames [3, H, W] in 0..1 of a file of a whole video, one by one.

    fps: at which a tokenizer of any frame rate decodes; None = that of the video.
    """
    from vistok import chunking, clip_streams, transcoding

    if record.chunks.stream:
        with computing(tokenizer, precision):
            yield from clip_streams.decode(tokenizer, record.tokens, record.chunks.frames, batch)
        return
    tokens, how = record.tokens, {"seed": seed, "sampling": sampling, "batch": batch}
    places = chunking.Chunking.from_record(tokenizer, record.chunks, tokens.fps)
    with computing(tokenizer, precision):
        if fps is None:
            yield from chunking.decode(tokenizer, tokens, places, condition, **how)
        else:
            yield from transcoding.decode(tokenizer, tokens, places, fps, condition, **how)
