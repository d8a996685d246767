"""Rate and distortion: the tokenizer at each length beside JPEG, WebP and AVIF (One-D-Piece,
arXiv 2501.10064).

Bytes of the tokens are those of real strings, and each entropy-coded one is decoded and compared:
- packed: `Tokens.to_bytes`, one string per image, with its header.
- arithmetic-image: the same header, then the codes by a range coder with frequencies of training
  images at each position; each image decodes alone.
- arithmetic: all images in one stream, whose frequencies adapt as it goes; no header, and no
  image decodes without those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, bar, shares
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, register
from vistok.eval.protocols.codecs import (
    CODECS,
    NEAR,
    SWEEP,
    Codec,
    codec_rows,
    matched,
    nearest_quality,
)
from vistok.eval.protocols.common import (
    Quality,
    all_codes,
    positions_of,
    training_job,
)
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.runtime.distributed import sum_, world_size
from vistok.tokens.entropy_coding import (
    CoderMissing,
    Frequencies,
    ImageCoder,
    coder_version,
    decode_set,
    encode_set,
    range_coder,
)

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

NAME = "rate_distortion"


@dataclass(frozen=True)
class Size:
    """Mean bytes of an image's tokens at one length, by one way to write them."""

    codec: str
    length: int
    bytes: float
    note: str


class RateDistortionConfig(ProtocolConfig):
    train_images: int = Field(default=4096, ge=2)
    """Training images whose codes give the static frequencies of arithmetic-image."""
    qualities: Selects[tuple[int, ...]] = SWEEP
    """Qualities at which the image codecs are measured, beside those that match the tokens."""


class _JobConfig(RateDistortionConfig):
    codecs: Selects[list[Any]]
    """Versions and options of the image codecs."""
    coder: Selects[str]
    """Version of the range coder."""


@register
class RateDistortion(Protocol):
    """Rate and distortion: tokens, packed and entropy-coded, beside JPEG, WebP and AVIF."""

    name = NAME
    Config = RateDistortionConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        own = _JobConfig(
            **config.rate_distortion.model_dump(),
            codecs=[[codec.version, codec.options] for codec in CODECS],
            coder=str(coder_version()),
        )
        return [training_job(self, system, config, own)]

    def run(self, context: Context, config: RateDistortionConfig) -> list[Row]:
        """Rows of the tokenizer at each length and way of writing, and of the codecs."""
        if not context.spec.vocab:
            context.skip(NAME, "continuous tokens have no bytes")
            return []
        sizes = packed_sizes(context) + coded_sizes(context, context.job.data)
        measured = tokenizer_quality(context)
        rows = [
            row
            for size in sizes
            for row in measured[size.length].rows(
                length=size.length,
                point={"codec": size.codec},
                measured={"bytes": size.bytes},
                note=size.note,
            )
        ]
        for codec in CODECS:
            rows += baseline(context, codec, sizes, config.qualities)
        return rows


def tokenizer_quality(context: Context) -> dict[int, Quality]:
    """Measures of the reconstruction at each length."""
    found = {length: Quality(context) for length in context.spec.eval_lengths}
    for batch in context.batches(f"{context.run.name}: reconstruct", found):
        condition = context.condition(batch)
        tokens = context.encode(batch, condition)
        for length, quality in found.items():
            cut = tokens if length == context.spec.max_prefix else tokens.prefix(length)
            quality.update(to_uint8(context.decode(cut, condition, batch.index)), batch.pixels)
    return found


def packed_sizes(context: Context) -> list[Size]:
    return [
        Size("packed", length, mean, f"bit-packed, {header:.1f} bytes of it header")
        for length, (mean, header) in _packed(context).items()
    ]


def _packed(context: Context) -> dict[int, tuple[float, float]]:
    """{length: mean bytes, and of the header alone}. Both are the same for every image: packed
    codes have a fixed width, and images of one size one header."""
    spec = context.spec
    batch = context.views.chosen([0])
    first = context.encode(batch, context.condition(batch))
    found = {}
    for length in spec.eval_lengths:
        cut = first if length == spec.max_prefix else first.prefix(length)
        size = len(cut.to_bytes()[0])
        codes = -(-len(positions_of(context.spec, length)) * sum(spec.factor_bits) // 8)
        found[length] = (float(size), float(size - codes))
    return found


def coded_sizes(context: Context, training: Callable[[Context], Views | str] | None) -> list[Size]:
    """Entropy-coded sizes; a skip says why there are none."""
    try:
        range_coder()
    except CoderMissing as error:
        context.skip(NAME, str(error))
        return []
    codes, spec = all_codes(context), context.spec
    sizes = [one_stream(context, codes, length) for length in spec.eval_lengths]
    if training is None:
        return sizes
    views = training(context)
    if isinstance(views, str):
        context.skip(f"{NAME}, arithmetic-image", views)
        return sizes
    known = Frequencies.of(spec, all_codes(context, views, "encode training images"))
    headers = {length: header for length, (_, header) in _packed(context).items()}
    return sizes + [
        alone(context, codes, known, length, headers[length], len(views))
        for length in spec.eval_lengths
    ]


def one_stream(context: Context, codes: Tensor, length: int) -> Size:
    positions = positions_of(context.spec, length)
    data = encode_set(context.spec, codes, positions)
    _same(decode_set(context.spec, data, len(codes), positions), codes[:, positions], "arithmetic")
    note = f"range coder, adaptive frequencies at each position, {len(codes)} images in one stream"
    return Size("arithmetic", length, len(data) / len(codes), note)


def alone(
    context: Context, codes: Tensor, known: Frequencies, length: int, header: float, training: int
) -> Size:
    """Each image by itself; the ranks share the images."""
    coder = ImageCoder(known, positions_of(context.spec, length))
    total = torch.zeros((), dtype=torch.float64)
    with bar(len(codes), f"{context.run.name}: code {length}") as progress:
        for index in shares(len(codes), context.batch):
            strings = coder.encode(codes[index])
            _same(coder.decode(strings), codes[index][:, coder.positions], "arithmetic-image")
            total += sum(map(len, strings))
            progress.update(len(index) * world_size())
    mean = float(sum_(total)) / len(codes) + header
    note = (
        f"header of {header:.1f} bytes, then a range coder with the frequencies of {training} "
        "training images at each position (known to both sides, not counted)"
    )
    return Size("arithmetic-image", length, mean, note)


def baseline(
    context: Context, codec: Codec, sizes: list[Size], qualities: Sequence[int]
) -> list[Row]:
    """The fixed qualities, then those that come nearest to the tokenizer's sizes."""
    if not codec.here:
        context.skip(f"{NAME}, {codec.name}", f"this Pillow was built without {codec.module}")
        return []
    rows = [
        row
        for quality in qualities
        if quality >= codec.lowest
        for row in codec_rows(context, codec, quality)
    ]
    by_quality: dict[int, list[str]] = {}
    missed: dict[str, list[Size]] = {}
    nearest: list[float] = []
    for size in sizes:
        quality, found = nearest_quality(context.views, codec, size.bytes)
        if matched(found, size.bytes):
            named = f"{size.codec} @{size.length} ({size.bytes:.1f} bytes)"
            by_quality.setdefault(quality, []).append(named)
        else:
            missed.setdefault(size.codec, []).append(size)
            nearest.append(found)
    for quality, names in by_quality.items():
        note = f"matched to {context.run.name} {', '.join(names)}"
        rows += codec_rows(context, codec, quality, note)
    if missed:
        names = "; ".join(
            f"{name} " + ", ".join(f"@{one.length} {one.bytes:.1f}" for one in own)
            for name, own in missed.items()
        )
        context.skip(
            f"{NAME}, {codec.name} at matched bytes",
            f"no quality comes within {NEAR:.0%} of these bytes: {names}; its nearest files have "
            f"{min(nearest):.0f}",
        )
    return rows


def _same(decoded: np.ndarray, codes: Tensor, name: str) -> None:
    if not np.array_equal(decoded, codes.numpy()):
        raise RuntimeError(f"{name}: decoding gave other tokens than were coded; report this")
