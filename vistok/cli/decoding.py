"""The work of `vistok decode`: read .vtk files, decode them in batches, write images or clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from vistok.cli.inputs import Read, Source, in_batches, read_ahead
from vistok.cli.long_clips import decode_whole
from vistok.cli.media import FPS, to_frames, write, write_frames, write_image
from vistok.cli.outputs import say
from vistok.cli.running import computing
from vistok.cli.work import Work
from vistok.config.errors import InputError, UserError


@dataclass(frozen=True)
class Decoding:
    """Settings of one `vistok decode`."""

    tokenizer: Any
    codec: Any
    condition: Any = None  # of one sample
    sized: bool = False  # the condition asks for a size
    length: int | None = None
    seed: int = 0
    sampling: Any = None
    moving: bool = False  # write clips, not images
    fps: float | None = None  # of the clips that are written; None = what their tokens say
    transcode: bool = False  # decode at that rate, not only write with it
    quality: int | None = None
    batch: int = 16
    workers: int = 2
    precision: str = "fp32"

    @property
    def unit(self) -> str:
        return "clip" if self.tokenizer.shape.is_clip else "image"

    def run(
        self, sources: Sequence[Source], targets: Sequence[Path], claim: Callable[[], None]
    ) -> None:
        """Write an image or clip for each source; InputError at the end if some failed.

        Args:
            claim: called before anything is written, once a file could be read.
        """
        claimed, written = False, 0
        with Work("decode", len(sources), self.unit) as work:
            ahead = read_ahead(sources, self._read, self.workers, 2 * self.batch)
            for reads in in_batches(ahead, self.batch):
                for one in reads:
                    if one.error is not None:
                        work.fail(one.source.path, one.error)
                good = [one for one in reads if one.error is None]
                if good and not claimed:
                    claimed = True
                    claim()
                for _, alike in groupby(good, key=_kind):
                    for one, pixels in self._decoded(list(alike), work):
                        target = targets[one.number]
                        try:
                            size = self._write(pixels, target, one.value.tokens.fps)
                        except InputError as error:  # this file's own fault
                            path, said = one.source.path, str(error)
                            named = path in said or str(target) in said
                            work.fail(path, error if named else InputError(f"{path}: {said}"))
                            continue
                        data = target.stat().st_size
                        written += data
                        work.succeed(f"{one.source.path} -> {target} ({size}, {data:,} bytes)")
            seconds = work.seconds
        if work.done > 1:
            say(
                f"{work.done:,} {self.unit}s: {written:,} bytes; {seconds:.1f} s, "
                f"{work.done / seconds:.1f} {self.unit}s/s"
            )
        work.finish()

    def _read(self, path: str) -> Any:
        """The record of a file, cut to the length that is asked for."""
        record = self.codec.read_file(path)
        if record.tiles is not None and self.sized:
            raise InputError(f"{path}: tiles of a larger image have its size; leave out --size")
        if self.length is None:
            return record
        try:
            return replace(record, tokens=record.tokens.prefix(self.length))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def _decoded(self, reads: Sequence[Read], work: Work) -> list[tuple[Read, Any]]:
        """(file, its pixels: floats [1, 3, *sides] in 0..1, or [3, H, W] uint8 of tiles)."""
        try:
            return self._together(reads, work)
        except UserError as error:
            if len(reads) > 1:
                return [found for one in reads for found in self._decoded([one], work)]
            path = reads[0].source.path
            work.fail(path, type(error)(f"{path}: {error}"))
            return []

    def _together(self, reads: Sequence[Read], work: Work) -> list[tuple[Read, Any]]:
        import torch

        from vistok import tiling
        from vistok.tokens import Tokens

        with computing(self.tokenizer, self.precision):
            if reads[0].value.chunks is not None:
                return [(one, self._whole(one.value)) for one in reads]
            if reads[0].value.tiles is not None:
                return [(one, self._tiled(one.value, work)) for one in reads]
            if self.transcode:
                return [(one, self._at_rate(one.value.tokens)) for one in reads]
            tokens = Tokens.cat([one.value.tokens for one in reads])
            pixels = self.tokenizer.decode(
                tokens,
                tiling.of_all(self.condition, len(reads)),
                seed=self.seed,
                index=torch.zeros(len(reads), dtype=torch.long),  # each as if it were alone
                sampling=self.sampling,
            )
        return [(one, pixels[row : row + 1]) for row, one in enumerate(reads)]

    def _whole(self, record: Any) -> Any:
        """The frames [3, H, W] of a clip in windows, decoded as they are asked for; of an image,
        as an image, [1, 3, H, W]."""
        still = record.chunks.frames == 1 and not self.moving
        if not self.moving and not still:
            raise InputError(
                f"{record.chunks.frames:,} frames of a whole video: expected --format mp4, gif, "
                "webp or frames"
            )
        frames = decode_whole(
            record,
            self.tokenizer,
            self.condition,
            seed=self.seed,
            sampling=self.sampling,
            batch=self.batch,
            precision=self.precision,
            fps=self.fps if self.transcode else None,
        )
        return next(frames)[None] if still else frames

    def _at_rate(self, tokens: Any) -> Any:
        """A clip [1, 3, T, H, W] of the same duration at the rate that is asked for."""
        import torch

        from vistok import transcoding
        from vistok.chunking import Chunking

        frames = self.tokenizer.shape.frames if tokens.size is None else tokens.size[0]
        made = transcoding.decode(
            self.tokenizer,
            tokens,
            Chunking(frames, frames, 0),
            self.fps,
            self.condition,
            seed=self.seed,
            sampling=self.sampling,
        )
        return torch.stack(list(made), 1)[None]

    def _tiled(self, record: Any, work: Work) -> Any:
        from vistok import tiling

        image = tiling.decode(
            self.tokenizer,
            record.tokens,
            tiling.Tiling.from_record(self.tokenizer, record.tiles),
            self.condition,
            seed=self.seed,
            sampling=self.sampling,
            batch=self.batch,
            told=lambda done, all_: work.detail(f"tile {done:,} of {all_:,}"),
        )
        work.detail("")
        return image

    def _write(self, pixels: Any, target: Path, fps: float | None) -> str:
        """Write one image or clip; its size in words."""
        if self.moving:
            given = fps if self.fps is None else self.fps
            frames = pixels[0].unbind(1) if hasattr(pixels, "shape") else pixels
            return write_frames(to_frames(frames, target), target, FPS if given is None else given)
        height, width = pixels.shape[-2:]
        if pixels.ndim == 3:
            write_image(pixels, target, self.quality)
        else:
            write(pixels, target, quality=self.quality)
        frames = f"{pixels.shape[2]} frames of " if pixels.ndim == 5 else ""
        return f"{frames}{width}x{height}"


def _kind(one: Read) -> tuple:
    """Equal for files that can be decoded as one batch; those with parts are decoded alone."""
    tokens, tiles = one.value.tokens, one.value.tiles
    alone = None if tiles is None and one.value.chunks is None else one.number
    return tokens.keep is None, tokens.size, tokens.fps, alone
