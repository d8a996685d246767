"""Video files -> chosen frames, upright 8-bit RGB, or `BadSample` with the reason.

What is decided here, once, for training and evaluation alike:
- The index of a file (`index`) says which frame is the n-th, whatever decodes it.
- torchcodec decodes if it is installed and finds FFmpeg's libraries, else PyAV, whose wheel brings
  its own. Under `auto`, what torchcodec cannot decode is tried with PyAV before it is broken.
- Decoding begins at the key frame before what is wanted, takes one thread, and keeps a few frames
  in memory. Nothing stays open between two calls, so no handle is ever shared over a fork.
- If frames do not come as the index says, the file is decoded once from end to end, and what then
  comes is its index (`robust`).
- The rotation that phones write is applied. Transparency is dropped, pixels count as square. Frames
  of a stream that changes its size keep the size that they have.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import numpy as np

from vistok.core.errors import InputError
from vistok.data.base import BadSample, DataError, one_line
from vistok.data.decode.video import torchcodec
from vistok.data.decode.video.index import probe
from vistok.data.decode.video.probe import Probe
from vistok.data.decode.video.pyav import by_pyav
from vistok.data.decode.video.reading import ENDED, reason
from vistok.data.decode.video.torchcodec import by_torchcodec

Decoder = Literal["auto", "torchcodec", "pyav"]
Result = TypeVar("Result")

log = logging.getLogger(__name__)


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
    version, fault = torchcodec.version()
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
    done, fault = 0, ""
    for kind in choose(decoder)[0]:
        try:
            for frame in _DECODERS[kind](os.path.abspath(path), index, wanted[done:]):
                done += 1
                yield frame
            if done == len(wanted):
                return
            fault = ENDED
        except Exception as error:  # decoders fail on hostile bytes in too many ways to list
            fault = reason(error)
    raise CutShort(name, f"frame {int(wanted[done])} cannot be decoded ({fault})", done)


def robust(
    take: Callable[[Probe], Result], index: Probe, decoded: Callable[[], Probe], name: str
) -> Result:
    """`take(index)`; if that ends in CutShort, `take` of the index of what decodes.

    decoded: gives `probe(..., decode=True)`. The answer depends on the file alone, never on what
    was read of it before. name: of the file in errors.
    """
    try:
        return take(index)
    except CutShort as cut:
        if index.decoded:
            raise
        fault = cut.reason
    try:
        return take(decoded())
    except CutShort:
        raise
    except BadSample as short:
        raise BadSample(name, f"{short.reason}: {fault}") from None


def read(
    path: str | os.PathLike[str], wanted: np.ndarray | list[int], decoder: Decoder = "auto"
) -> np.ndarray:
    """[T, H, W, 3] uint8: the frames `wanted` of a file; BadSample if the index lacks one."""
    name = os.fspath(path)
    numbers, places = np.unique(np.asarray(wanted, np.int64), return_inverse=True)

    def take(index: Probe) -> list[np.ndarray]:
        if numbers[-1] >= index.frames or numbers[0] < 0:
            raise BadSample(name, f"{index.frames} frames found, number {numbers[-1]} wanted")
        return list(frames(path, index, numbers, decoder))

    found = robust(take, probe(path), lambda: probe(path, decode=True), name)
    if len({frame.shape for frame in found}) > 1:
        raise InputError(f"{name}: its frames differ in size; read them one by one")
    return np.stack(found)[places]


def beginning(path: str | os.PathLike[str], count: int) -> tuple[list[np.ndarray], str]:
    """(the first `count` frames in a row of a file; what is odd about it, or "").

    Fewer where it has not so many in a row: then its longest part.
    """

    def take(index: Probe) -> tuple[list[np.ndarray], str]:
        long = [part for part in index.parts if part[1] - part[0] >= count]
        start, stop = long[0] if long else max(index.parts, key=lambda part: part[1] - part[0])
        wanted = np.arange(start, min(stop, start + count))
        return list(frames(path, index, wanted)), index.remarks

    return robust(take, probe(path), lambda: probe(path, decode=True), os.fspath(path))


_DECODERS: dict[str, Callable[[str, Probe, np.ndarray], Iterator[np.ndarray]]] = {
    "torchcodec": by_torchcodec,
    "pyav": by_pyav,
}
