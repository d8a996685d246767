"""The work of `vistok encode`: read files, encode them in batches, write a .vtk file for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from vistok.cli.inputs import Read, Source, in_batches, read_ahead
from vistok.cli.long_clips import encode_whole
from vistok.cli.outputs import say
from vistok.cli.running import computing
from vistok.cli.shared import frame_rate, read, takes_still
from vistok.cli.work import Work
from vistok.config.errors import InputError, UserError
from vistok.storage.files import write_bytes


@dataclass(frozen=True)
class Encoding:
    """Settings of one `vistok encode`."""

    tokenizer: Any
    codec: Any
    condition: Any = None  # of one sample
    length: int | None = None
    goal: Any = None  # `adaptive.Goal`; None = the length, or whole sequences
    resize: str = "crop"
    tile: bool = False
    whole: bool = False  # videos to their end, in windows
    overlap: int | None = None  # frames of neighboring windows; None = as the config says
    pad: str | None = None  # of the last window
    names: bool = False
    batch: int = 16
    workers: int = 2
    precision: str = "fp32"

    @property
    def unit(self) -> str:
        return "clip" if self.tokenizer.shape.is_clip else "image"

    def run(self, sources: Sequence[Source], targets: Sequence[Path]) -> None:
        """Write a file for each source; InputError at the end if some failed."""
        step = (
            1
            if self.tile
            or self.whole
            or self.tokenizer.reads_fps
            or (self.goal is not None and self.unit == "clip")
            else self.batch
        )
        written = 0
        with Work("encode", len(sources), self.unit) as work:
            ahead = read_ahead(sources, self._read, self.workers, 2 * step)
            for reads in in_batches(ahead, step):
                for one in reads:
                    if one.error is not None:
                        work.fail(one.source.path, one.error)
                good = [one for one in reads if one.error is None]
                for _, alike in groupby(good, key=_shape):
                    for one, data, about in self._encoded(list(alike), work):
                        target = targets[one.number]
                        write_bytes(target, data)
                        written += len(data)
                        work.succeed(f"{one.source.path} -> {target} ({len(data)} bytes{about})")
            seconds = work.seconds
        if work.done > 1:
            say(
                f"{work.done:,} {self.unit}s: {written:,} bytes, {written / work.done:,.0f} each; "
                f"{seconds:.1f} s, {work.done / seconds:.1f} {self.unit}s/s"
            )
        work.finish()

    def _read(self, path: str) -> Any:
        """Pixels [3, *sides] in 0..1 of a file, and of clips their frame rate: what is encoded."""
        if self.tile:
            from vistok.data.decode import images

            return images.to_tensor(images.read(path)), None
        still = takes_still(self.tokenizer, path)
        if self.whole and not still:
            return None, None  # its frames are read as they are encoded
        pixels = read([path], self.tokenizer, self.resize)[0]
        return pixels, frame_rate(path) if self.unit == "clip" and not still else None

    def _encoded(self, reads: Sequence[Read], work: Work) -> list[tuple[Read, bytes, str]]:
        """(file, its bytes, more words on it) of those of a batch that can be encoded."""
        if not reads:
            return []
        try:
            return self._together(reads, work)
        except UserError as error:
            if len(reads) > 1:  # one of them is to blame: each alone
                return [found for one in reads for found in self._encoded([one], work)]
            path = reads[0].source.path
            work.fail(path, type(error)(f"{path}: {error}"))
            return []

    def _together(self, reads: Sequence[Read], work: Work) -> list[tuple[Read, bytes, str]]:
        import torch

        from vistok import rates, tiling
        from vistok.tokens.labels import Record

        names = [_name(one.source, self.names) for one in reads]
        if reads[0].value[0] is None:
            return [(reads[0], *self._whole(reads[0].source.path, names[0], work))]
        with computing(self.tokenizer, self.precision):
            if self.tile:
                image = reads[0].value[0]
                told = lambda done, all_: work.detail(f"tile {done:,} of {all_:,}")
                tokens, places = tiling.encode(
                    self.tokenizer,
                    image,
                    self.length,
                    self.condition,
                    batch=self.batch,
                    told=told,
                )
                work.detail("")
                data = self.codec.write_record(Record(tokens, names[0], places.record()))
                height, width = places.sides
                plural = "s" if len(places) > 1 else ""
                about = f", {width}x{height} in {len(places):,} tile{plural}"
                return [(reads[0], data, about)]
            pixels = torch.stack([one.value[0] for one in reads])
            if self.unit == "clip" and pixels.shape[2] == 1 != self.tokenizer.shape.frames:
                return self._stills(reads, pixels, names)
            own = rates.of_clips(self.tokenizer, self.condition, reads[0].value[1])
            condition = tiling.of_all(own, len(reads))
            if self.goal is None:
                tokens = self.tokenizer.encode(pixels, self.length, condition)
                about = [""] * len(reads)
            else:
                tokens, about = self._searched(reads, pixels, condition, work)
        made = []
        for row, one in enumerate(reads):
            own = replace(tokens.select(slice(row, row + 1)), fps=one.value[1])
            made.append((one, self.codec.write_record(Record(own, names[row])), about[row]))
        return made

    def _stills(
        self, reads: Sequence[Read], pixels: Any, names: Sequence[str | None]
    ) -> list[tuple[Read, bytes, str]]:
        """Images, as streams of one block."""
        from vistok.tokens.labels import Chunked, Record

        if self.goal is not None:
            raise InputError(
                "an image has one length for a tokenizer of clips; leave out --target-psnr, "
                "--max-perceptual and --max-bytes"
            )
        tokens, chunks = self.tokenizer.encode(pixels), Chunked(1, 0, 1, stream=True)
        tokens = replace(tokens, spec=self.tokenizer.block_spec)
        made = []
        for row, one in enumerate(reads):
            record = Record(tokens.select(slice(row, row + 1)), names[row], chunks=chunks)
            made.append((one, self.codec.write_record(record), ", an image"))
        return made

    def _whole(self, path: str, name: str | None, work: Work) -> tuple[bytes, str]:
        """(the file of all frames of a video, words on them)."""
        from vistok.tokens.labels import Record

        tokens, chunked, fps, remarks = encode_whole(
            path,
            self.tokenizer,
            overlap=self.overlap,
            pad=self.pad,
            resize=self.resize,
            length=self.length,
            condition=self.condition,
            batch=self.batch,
            precision=self.precision,
        )
        if remarks:
            work.warn(f"{path}: {remarks}")
        record = Record(replace(tokens, fps=fps), name, chunks=chunked)
        part, plural = "block" if chunked.stream else "window", "s" if chunked.count > 1 else ""
        about = f", {chunked.frames:,} frames in {chunked.count:,} {part}{plural}"
        return self.codec.write_record(record), about

    def _searched(
        self, reads: Sequence[Read], pixels: Any, condition: Any, work: Work
    ) -> tuple[Any, list[str]]:
        """(tokens, words on the length of each file) of a search for lengths."""
        import torch

        from vistok.adaptive import choose, told_miss

        # Each with the noise of a file alone; the header of a clip holds its rate, and its bytes
        # count.
        index, fps = torch.zeros(len(reads), dtype=torch.long), reads[0].value[1]
        goal = replace(self.goal, index=index, fps=fps)
        found = choose(self.tokenizer, pixels, goal, condition)
        words = []
        for row, one in enumerate(reads):
            if not bool(found.met[row]):
                work.warn(f"{one.source.path}: {told_miss(found, goal, row)}")
            about = f", length {int(found.lengths[row])}"
            if found.psnr is not None:
                about += f", {float(found.psnr[row]):.2f} dB"
            if found.perceptual is not None:
                about += f", perceptual distance {float(found.perceptual[row]):.4f}"
            words.append(about)
        return found.tokens, words


def _shape(one: Read) -> tuple[int, ...]:
    """Equal for images or clips that can be encoded as one batch."""
    pixels = one.value[0]
    return () if pixels is None else tuple(pixels.shape)


def _name(source: Source, kept: bool) -> str | None:
    return PurePath(source.below).as_posix() if kept else None


def goal_of(tokenizer: Any, goals: dict[str, Any], codec: Any, seed: int) -> Any:
    """The checked goal that the length must reach; None if nothing is asked for."""
    if not goals:
        return None
    from vistok.adaptive import Goal
    from vistok.frozen import perceptual_network

    if "max_perceptual" in goals:  # once for all files
        goals = {**goals, "perceptual": perceptual_network("vistok-cnn")}
    goal = Goal(codec=codec, seed=seed, **goals)
    goal.check(tokenizer.spec())
    return goal


def check_windows(
    tokenizer: Any,
    goals: dict[str, Any],
    overlap: int | None,
    length: int | None,
    frequencies: str | None = None,
) -> None:
    """InputError for whole videos of a tokenizer of images, with a goal instead of a length, and
    for a stream with a length or a frequency table."""
    from vistok.chunking import Chunking
    from vistok.clip_streams import streams

    Chunking.of(tokenizer, 1, overlap)
    if goals:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in goals)
        raise InputError(
            f"{names}: whole videos (--whole, --overlap, --pad or the config's chunks) have one "
            "length; give --length"
        )
    if length is not None and streams(tokenizer, overlap):
        raise InputError(
            f"--length {length}: a stream keeps all tokens of its frames; leave it out, or give "
            "--overlap 0 for windows"
        )
    if frequencies is not None and streams(tokenizer, overlap):
        raise InputError(
            f"--frequencies {frequencies}: it counts the codes of clips of "
            f"{tokenizer.shape.frames} frames, and those of a stream are packed; leave it out, or "
            "give --overlap 0 for windows"
        )


def check_tiles(tokenizer: Any, goals: dict[str, Any]) -> None:
    """InputError for tiles of a tokenizer of clips, or with a goal instead of a length."""
    from vistok.tiling import Tiling

    Tiling.of(tokenizer, tokenizer.shape.sides[-2:])
    if goals:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in goals)
        raise InputError(f"--tile with {names}: all tiles have one length; give --length")
