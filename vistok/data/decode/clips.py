"""Video files -> chosen frames, upright 8-bit RGB, or `BadSample` with the reason.

What is decided here, once, for training and evaluation alike:
- The kind of file is read from its content, never from its name; a playlist, which could name other
  files and addresses, is refused with everything else that holds no frames itself.
- PyAV reads the index of a file (packets, nothing decoded), so that which frame is the n-th does
  not depend on the decoder. Frames are sorted by the time at which they are shown.
- torchcodec decodes if it is installed and finds FFmpeg's libraries, else PyAV, whose wheel brings
  its own. A frame of torchcodec counts only if it has the time that the index says; under `auto`,
  what torchcodec cannot decode is tried with PyAV before it is called broken.
- Decoding begins at the key frame before what is wanted, takes one thread, and keeps a few frames
  in memory. Nothing stays open between two calls, so no handle is ever shared over a fork.
- More than 36 Mpx a frame (8K has 35.4) is refused on the declared size.
- The rotation that phones write is applied. Transparency is dropped, pixels count as square.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from vistok.core.errors import InputError
from vistok.core.regular_files import open_regular
from vistok.data.base import BadSample, DataError, one_line

Decoder = Literal["auto", "torchcodec", "pyav"]
PIXEL_LIMIT = 36_000_000
_TOGETHER = 32_000_000  # pixels that torchcodec decodes at once
_SKIP = 8  # frames up to which decoding and discarding is cheaper than a seek
_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: a bare stream; what FFmpeg then says of times is guessed
_ENDED = "the video ends early"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """The index of a file. Frames are numbered in the order in which they are shown."""

    pts: np.ndarray  # [N] int64, rising, in units of `unit`
    durations: np.ndarray  # [N] int64
    keys: np.ndarray  # [K] int64: which frames are key frames
    unit: Fraction  # seconds
    fps: float  # mean frame rate
    size: tuple[int, int]  # (H, W) as stored: before a rotation
    timed: bool  # False: frames carry no times; `pts` counts them and they are found by counting
    stream: int

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> np.ndarray:
        """[N] float64, seconds since the first frame."""
        return (self.pts - self.pts[0]) * float(self.unit)

    def key(self, frame: int) -> int:
        """The key frame at which decoding of `frame` begins; 0 if the index names none."""
        place = int(np.searchsorted(self.keys, frame, side="right")) - 1
        return int(self.keys[place]) if place >= 0 else 0


class CutShort(BadSample):
    """Decoding failed after `done` of the frames wanted."""

    def __init__(self, name: str, reason: str, done: int = 0) -> None:
        super().__init__(name, reason)
        self.args, self.done = (name, reason, done), done


@functools.cache
def choose(decoder: Decoder) -> tuple[tuple[str, ...], str]:
    """(decoders in the order in which they are tried, their names and versions for the record).

    DataError if none can be used. Logs once per process which one it is and why.
    """
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"data.video: PyAV cannot be used ({one_line(error)}); pip install 'av>=17'"
        ) from None
    pyav = f"pyav {av.__version__}"
    if decoder == "pyav":
        return ("pyav",), pyav
    version, fault = _torchcodec()
    if decoder == "torchcodec":
        if fault:
            raise DataError(
                f"data.video decoder=torchcodec: {fault}; install FFmpeg's libraries and a "
                f"torchcodec that fits this torch, or take decoder=pyav"
            )
        return ("torchcodec",), version
    if fault:
        log.warning("videos are decoded with %s: %s", pyav, fault)
        return ("pyav",), pyav
    log.info("videos are decoded with %s; with %s what it cannot decode", version, pyav)
    return ("torchcodec", "pyav"), f"{version}, else {pyav}"


def probe(path: str | os.PathLike[str], name: str | None = None) -> Probe:
    """Read a file's index; `name` (default: the path) is what errors call it."""
    name = os.fspath(path) if name is None else name
    _sniff(path, name)
    try:
        return _scan(path, name)
    except BadSample:
        raise
    except Exception as error:  # demuxers fail on hostile bytes in too many ways to list
        raise BadSample(name, f"cannot be opened as a video ({_reason(error)})") from None


def frames(
    path: str | os.PathLike[str],
    index: Probe,
    wanted: np.ndarray,
    decoder: Decoder = "auto",
    name: str | None = None,
) -> Iterator[np.ndarray]:
    """The frames `wanted` (numbers, rising) one by one, [H, W, 3] uint8; CutShort on the way."""
    name = os.fspath(path) if name is None else name
    wanted = np.asarray(wanted, np.int64)
    done, reason, shape = 0, "", None
    for kind in choose(decoder)[0]:
        try:
            for frame in _DECODERS[kind](os.path.abspath(path), index, wanted[done:]):
                if frame.shape != (shape or frame.shape):
                    raise InputError(f"frames change from {shape} to {frame.shape}")
                shape = frame.shape
                done += 1
                yield frame
            if done == len(wanted):
                return
            reason = _ENDED
        except Exception as error:  # as above
            reason = _reason(error)
    raise CutShort(name, f"frame {int(wanted[done])} cannot be decoded ({reason})", done)


def read(
    path: str | os.PathLike[str], wanted: np.ndarray | list[int], decoder: Decoder = "auto"
) -> np.ndarray:
    """[T, H, W, 3] uint8: the frames `wanted` of a file; each number must be in the index."""
    numbers, places = np.unique(np.asarray(wanted, np.int64), return_inverse=True)
    return np.stack(list(frames(path, probe(path), numbers, decoder)))[places]


def decodable(path: str | os.PathLike[str], index: Probe, decoder: Decoder = "auto") -> int:
    """Number of frames of a damaged file that decode before the first that does not."""
    count = 0
    try:
        for _ in frames(path, index, np.arange(index.frames), decoder):
            count += 1
    except CutShort:
        pass
    return count


def _sniff(path: str | os.PathLike[str], name: str) -> None:
    """BadSample unless the file begins like one that holds frames."""
    try:
        with open_regular(path, "rb") as file:
            head = file.read(400)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BadSample(name, f"cannot be read ({reason})") from None
    if not head:
        raise BadSample(name, "the file is empty (0 bytes)")
    starts = (
        *(b"\x1aE\xdf\xa3", b"GIF8", b"\0\0\1\xba", b"\0\0\1\xb3", b"OggS", b"FLV\1"),
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    )
    if (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
        or head.startswith(starts)
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or any(head[at : at + 1] == head[at + step : at + step + 1] == b"G" for at, step in _TS)
    ):
        return
    raise BadSample(
        name,
        f"not a video: it starts with {head[:8]!r}; expected MP4, MOV, WebM, MKV, AVI, MPEG, TS, "
        f"Ogg, FLV, WMV or GIF",
    )


_TS = ((0, 188), (4, 192))  # a transport stream's packets begin with G; Blu-ray's after 4 bytes


def _open(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """(container, its video stream or None); one thread."""
    import av

    container = av.open(os.path.abspath(path))
    stream = container.streams.best("video")
    if stream is not None:
        stream.thread_count, stream.thread_type = 1, "NONE"
        stream.codec_context.options = {"max_pixels": str(PIXEL_LIMIT)}
    return container, stream


def _scan(path: str | os.PathLike[str], name: str) -> Probe:
    container, stream = _open(path)
    with container:
        if stream is None:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise BadSample(name, f"has no video stream, only {kinds}")
        height, width = stream.height, stream.width
        if height < 1 or width < 1:
            raise BadSample(name, f"declares {width}x{height} pixels; expected 1 or more")
        if height * width > PIXEL_LIMIT:
            limit = f"{PIXEL_LIMIT / 1e6:g} Mpx"
            raise BadSample(name, f"declares {width}x{height} pixels, over the limit of {limit}")
        packets = [
            (packet.pts, packet.duration or 0, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_corrupt and not packet.is_discard
        ]
        rate = stream.average_rate or stream.guessed_rate
        unit = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        place = stream.index
        bare = bool(container.format.flags & _NO_TIMES)
    if not packets:
        raise BadSample(name, "has a video stream without frames")
    pts = [pts for pts, _, _ in packets]
    timed = not bare and None not in pts and len(set(pts)) == len(pts)
    if timed:
        packets.sort()
        span = (packets[-1][0] - packets[0][0]) * unit
        fps = float((len(packets) - 1) / span) if span else float(rate or 0)
    else:
        fps = float(rate or 0)
    if fps <= 0:
        raise BadSample(name, "states neither times of its frames nor a frame rate")
    count = np.arange(len(packets))
    return Probe(
        pts=np.array([p for p, _, _ in packets], np.int64) if timed else count,
        durations=np.array([d for _, d, _ in packets], np.int64),
        keys=np.flatnonzero([key for _, _, key in packets]) if timed else count[:1],
        unit=unit if timed else 1 / Fraction(fps),
        fps=round(fps, 3),
        size=(height, width),
        timed=timed,
        stream=place,
    )


def _torchcodec() -> tuple[str, str]:
    """(name and version, "") or ("", why it cannot be used)."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoStreamMetadata
    except ModuleNotFoundError:
        return "", "torchcodec is not installed"
    except Exception as error:  # a library that is missing or does not fit: RuntimeError, OSError
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "", f"torchcodec does not load ({lines[0] if lines else type(error).__name__})"
    if "rotation" not in getattr(VideoStreamMetadata, "__dataclass_fields__", {}):
        return "", f"torchcodec {torchcodec.__version__} is too old to turn frames upright"
    return f"torchcodec {torchcodec.__version__}", ""


def _by_torchcodec(path: str, index: Probe, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Frames by torchcodec, which is told the index (from the key frame on) and scans nothing."""
    from torchcodec.decoders import VideoDecoder

    if not index.timed:
        raise InputError("its frames carry no times")
    first = index.key(int(wanted[0]))
    here = range(first, int(wanted[-1]) + 1)
    keys = set(index.keys.tolist())
    mapping = [
        {
            "pts": int(index.pts[i]),
            "duration": int(index.durations[i]),
            "key_frame": int(i in keys or i == first),
        }
        for i in here
    ]
    decoder = VideoDecoder(
        path,
        stream_index=index.stream,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        custom_frame_mappings=json.dumps({"frames": mapping}),
    )
    step = max(1, _TOGETHER // (index.size[0] * index.size[1]))
    for start in range(0, len(wanted), step):
        yield from _checked(decoder, index, wanted[start : start + step], first)


def _checked(decoder: Any, index: Probe, wanted: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """Frames with the times they should have; one by one if they do not decode together."""
    try:
        parts = [decoder.get_frames_at((wanted - first).tolist())]
    except Exception:
        if len(wanted) == 1:
            raise
        for frame in wanted:
            yield from _checked(decoder, index, frame[None], first)
        return
    for part in parts:
        expected = index.pts[wanted] * float(index.unit)
        off = np.abs(part.pts_seconds.numpy() - expected).max()
        if off > float(index.unit) / 2 + 1e-6:
            raise InputError(f"torchcodec found another frame, {off:.3f} s away")
        yield from part.data.numpy()


def _by_pyav(path: str, index: Probe, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Frames by PyAV: a run of frames from each key frame that is worth a seek."""
    cuts = [
        i
        for i in range(1, len(wanted))
        if index.timed and index.key(int(wanted[i])) - wanted[i - 1] > _SKIP
    ]
    for run in np.split(wanted, cuts):
        key = index.key(int(run[0]))
        if key:
            container, stream = _open(path)
            with container:
                container.seek(int(index.pts[key]), stream=stream)
                found = _run(container, stream, index, run.tolist())
                head = next(found, None)
                if head is not None:
                    yield head
                    yield from found
                    continue
        container, stream = _open(path)  # no key frame to seek, or the seek went too far
        with container:
            yield from _run(container, stream, index, run.tolist(), begun=True)


def _run(
    container: Any, stream: Any, index: Probe, run: list[int], begun: bool = False
) -> Iterator[np.ndarray]:
    """The frames `run`, decoding from where the file stands; none if that is behind the first.

    `begun`: the file stands at its beginning, else decoding waits for a key frame.
    """
    done, count = 0, 0
    for packet in container.demux(stream):
        if not begun:
            if not packet.is_keyframe:
                continue
            if packet.pts is None or packet.pts > index.pts[run[0]]:
                return
            begun = True
        if packet.is_corrupt:
            raise InputError(_ENDED)
        for frame in packet.decode():
            at, count = _number(index, frame, count), count + 1
            if at < run[done]:
                continue
            if at > run[done] or frame.is_corrupt:
                raise InputError("it is missing" if at > run[done] else "it is damaged")
            pixels = frame.to_ndarray(format="rgb24", threads=1)
            yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
            done += 1
            if done == len(run):
                return
    if begun:
        raise InputError(_ENDED)


def _number(index: Probe, frame: Any, count: int) -> int:
    """The number of a decoded frame; -1 if the index does not know it."""
    if not index.timed:
        return count
    if frame.pts is None:
        return -1
    place = int(np.searchsorted(index.pts, frame.pts))
    return place if place < index.frames and index.pts[place] == frame.pts else -1


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # torchcodec begins with the place in its own source.
    return lines[0].rsplit(".cpp:", 1)[-1].lstrip("0123456789, ") if lines else type(error).__name__


_DECODERS: dict[str, Callable[[str, Probe, np.ndarray], Iterator[np.ndarray]]] = {
    "torchcodec": _by_torchcodec,
    "pyav": _by_pyav,
}
