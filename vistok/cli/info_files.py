"""Facts that `vistok info` prints of files: a .vtk file or a video, alone or for a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vistok.config.errors import InputError

SUFFIX = ".vtk"


def is_file(name: str) -> bool:
    """True for the name of a .vtk file or of a video, there or not."""
    from vistok.data.kinds.video import ENDINGS

    return Path(name).suffix.lower() in (SUFFIX, *ENDINGS) and not Path(name).is_dir()


def facts(path: str, model: str | None) -> dict[str, Any]:
    """Lines on a file, by name. `model`: the tokenizer that made it, or that is to encode it."""
    from vistok.cli.shared import open_tokenizer

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    tokenizer = None if model is None else open_tokenizer(model)
    if Path(path).suffix.lower() != SUFFIX:
        return _video(path) | ({} if tokenizer is None else _fit(path, tokenizer))
    if tokenizer is None:
        return _outside(path)
    return _inside(path, tokenizer, model)


# -- .vtk files -----------------------------------------------------------------------------------


def _outside(path: str) -> dict[str, Any]:
    """The facts that a .vtk file tells without its tokenizer."""
    from vistok.tokens.codec import summary

    found = summary(path)
    rows = {"file": f"{found.size:,} bytes, {found.coder}"}
    rows |= _about(found.label)
    header = found.header
    if header is not None and header.size is not None:
        frames, height, width = header.size
        frames = frames if found.label.chunks is None else found.label.chunks.frames
        if found.label.tiles is not None:
            height, width = found.label.tiles.height, found.label.tiles.width
        rows["size"] = _size(frames, height, width)
    if header is not None and header.fps is not None:
        rows["fps"] = f"{header.fps:g}"
        rows |= _seconds(found.label, header)
    rows["made by weights"] = "not stated" if header is None else header.made_by or "not stated"
    rows["tokens"] = "give --tokenizer NAME, the one that made it, to count them"
    return rows


def _inside(path: str, tokenizer: Any, model: str) -> dict[str, Any]:
    from vistok.cli.frequencies import codec_of

    record = codec_of(tokenizer, model, None, write=False).read_file(path)
    tokens, size = record.tokens, Path(path).stat().st_size
    kept = int(tokens.kept().sum())
    bits = kept * sum(tokens.spec.factor_bits)
    rows: dict[str, Any] = {"file": f"{size:,} bytes"} | _about(record)
    frames, (height, width) = tokenizer.shape.frames, tokenizer.shape.image_size
    if record.chunks is not None:
        frames = record.chunks.frames
    elif tokens.size is not None:
        frames, height, width = tokens.size
    if record.tiles is not None:
        height, width = record.tiles.height, record.tiles.width
    rows["size"] = _size(frames or 1, height, width)
    if tokens.fps is not None:
        rows["fps"] = f"{tokens.fps:g}"
        rows["seconds"] = f"{frames / tokens.fps:.3f}"
    rows["tokens"] = f"{kept:,} of {len(tokens) * tokens.spec.length:,}"
    rows["bits"] = f"{bits:,}"
    rows["bpp"] = f"{8 * size / (height * width * (frames or 1)):.4f} of the file"
    rows["tokenizer"] = f"{model} (weights {tokens.made_by})"
    return rows


def _size(frames: int, height: int, width: int) -> str:
    return (f"{frames:,} frames of " if frames > 1 else "") + f"{width}x{height}"


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _about(record: Any) -> dict[str, Any]:
    """Name, tiles and windows of a label or record."""
    rows: dict[str, Any] = {}
    if record.name is not None:
        rows["made of"] = record.name
    if record.tiles is not None:
        one = record.tiles
        rows["tiles"] = f"{one.count:,} of {one.width}x{one.height}, overlap {one.overlap}"
    if record.chunks is not None:
        one = record.chunks
        how = f"{_many(one.count, 'window')}, overlap {one.overlap}"
        rows["frames"] = f"{one.frames:,}"
        rows["parts"] = f"one stream of {_many(one.count, 'block')}" if one.stream else how
    return rows


def _seconds(label: Any, header: Any) -> dict[str, str]:
    frames = label.chunks.frames if label.chunks is not None else (header.size or (None,))[0]
    return {} if frames is None else {"seconds": f"{frames / header.fps:.3f}"}


# -- videos ---------------------------------------------------------------------------------------


def _video(path: str) -> dict[str, Any]:
    """The facts of a video, of the frames that decode."""
    import numpy as np

    from vistok.data.decode.video import clips
    from vistok.data.decode.video.reading import decode_from, open_file

    index = clips.probe(path)
    shown = next(iter(clips.frames(path, index, np.array([index.parts[0][0]]))))
    container, stream = open_file(path)
    with container:
        audio = len(container.streams.audio)
        first = next(iter(decode_from(container, stream, index.first)))
        turned = round(-first.rotation / 90) % 4 * 90
    rows = {
        "frames": f"{index.frames:,}",
        "fps": f"{index.fps:g}",
        "seconds": f"{index.seconds:.3f}",
        "size": f"{shown.shape[1]}x{shown.shape[0]}",
        "codec": f"{index.codec} in {index.container}",
    }
    steps = np.diff(index.times)
    if len(steps) and steps.max() > 1.5 * steps.min():
        rows["fps"] += (
            f" on average; a frame is shown for {steps.min():.3g} to {steps.max():.3g} seconds"
        )
    if turned:
        rows["rotation"] = f"{turned} degrees clockwise, stored as {index.size[1]}x{index.size[0]}"
    if audio:
        rows["audio"] = "is left out"
    if len(index.parts) > 1:
        longest = max(b - a for a, b in index.parts)
        pieces = f"{len(index.parts)}, by damage or joined recordings"
        rows["parts"] = f"{pieces}; the longest has {longest:,} frames"
    if index.remarks:
        rows["remarks"] = index.remarks
    return rows


def _fit(path: str, tokenizer: Any) -> dict[str, Any]:
    """Numbers of frames, tokens and bits of a video for a tokenizer."""
    from vistok.chunking import Chunking
    from vistok.clip_streams import streams
    from vistok.data.decode.video import clips

    if not tokenizer.shape.is_clip:
        raise InputError(f"{path}: a video, and this tokenizer takes images; expected one of clips")
    index = clips.probe(path)
    count = max(stop - start for start, stop in index.parts)
    places = Chunking.of(tokenizer, count, fps=index.fps)
    spec, stride = tokenizer.spec(), tokenizer.frame_stride
    takes, enough = f"{places.window} frames at a time", count >= places.window
    if stride is not None:
        takes += f", or 1 + k x {stride}: 1, {1 + stride}, {1 + 2 * stride}, ..."
    if streams(tokenizer, None):
        parts = 1 + -(-(count - 1) // stride)
        missing, each, name = -(count - 1) % stride, tokenizer.block_spec, "block"
    else:
        takes += f"; whole videos of {places.window} + k x {places.step}"
        missing, parts, each, name = places.padding, len(places), spec, "window"
    padded = f", with --pad (frames that are missing: {missing})" if missing else ""
    first = f"{spec.length:,} tokens, {spec.bits:,} bits"
    return {
        "tokenizer takes": takes,
        "first frames": first if enough else f"{count} are too few for a clip of {places.window}",
        "whole video": f"{_many(parts, name)}, {each.length * parts:,} tokens, "
        f"{each.bits * parts:,} bits{padded}",
    }
