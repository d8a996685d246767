"""Images and clips that commands write."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vistok.config.errors import InputError
from vistok.storage.files import replacing, unwritten

LONGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels of a side that their files can have
LOSSY = tuple(LONGEST)  # formats with a quality
MOVING = (".mp4", ".webp", ".gif")  # files of clips
FPS = 8.0  # frames per second of clips whose rate is not known
FIRST_FRAME = "00001.png"  # of a folder of frames: the name that stands for all
_SLOWEST, _FASTEST = 0.01, 1000.0  # frames per second that files of clips can say


def image_format(path: str | Path) -> str:
    """Pillow's name of the format that an image file's suffix says; InputError for none."""
    from PIL import Image

    known = Image.registered_extensions()
    form = known.get(Path(path).suffix.lower())
    if form not in Image.SAVE:
        raise InputError(f"{path}: no image by its name; expected a suffix such as .png or .jpg")
    return form


def write(pixels: Any, path: str | Path, columns: int = 1, quality: int | None = None) -> None:
    """pixels [B, 3, H, W] in 0..1 -> one image; of clips [B, 3, T, H, W] one row of frames each.

    InputError for pixels that are not finite, UnwrittenError if the disk refuses.
    """
    from torchvision.utils import make_grid

    from vistok.data.batch import to_uint8

    _check_finite(pixels, path)
    if pixels.ndim == 5:
        columns = pixels.shape[2]
        pixels = pixels.transpose(1, 2).flatten(0, 1)
    padding = 0 if len(pixels) == 1 else 2
    write_image(to_uint8(make_grid(pixels, nrow=columns, padding=padding)), path, quality)


def moves(path: str | Path) -> bool:
    """True for the name of a file of moving images; InputError if it cannot be written here."""
    suffix = Path(path).suffix.lower()
    if suffix == ".mp4":
        check_video(suffix)
    return suffix in MOVING


def write_clips(clips: Any, path: str | Path, columns: int, fps: float) -> str:
    """Clips [B, 3, T, H, W] in 0..1 -> a grid of them that plays, see `write_frames`."""
    from torchvision.utils import make_grid

    padding = 0 if len(clips) == 1 else 2
    grids = (make_grid(one, nrow=columns, padding=padding) for one in clips.unbind(2))
    return write_frames(to_frames(grids, Path(path)), Path(path), fps)


def write_image(image: Any, path: str | Path, quality: int | None = None) -> None:
    """image [3, H, W] uint8 -> a file of the format that its suffix says.

    Args:
        quality: of JPEG and WebP, 1..100; None = Pillow's default.
    InputError for one that is too long for its format, UnwrittenError if the disk refuses.
    """
    from PIL import Image

    form, (height, width) = image_format(path), image.shape[1:]
    if max(height, width) > (most := LONGEST.get(form, math.inf)):
        raise InputError(
            f"{path}: an image of {width}x{height}; {form} files have sides of {most:,} pixels or "
            "fewer: expected another format, such as png"
        )
    options = {} if quality is None or form not in LOSSY else {"quality": quality}
    try:
        with replacing(path) as draft:
            drawn = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
            drawn.save(draft, format=form, **options)
    except OSError as error:
        raise unwritten(path, error) from None


def to_frames(frames: Iterable[Any], path: Path) -> Iterator[Any]:
    """Frames [3, H, W] in 0..1 -> [H, W, 3] uint8; InputError for one that is not finite.

    path: of the file that they are for.
    """
    for frame in frames:
        _check_finite(frame, path)
        yield (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def check_rate(fps: float | None) -> None:
    """InputError for a rate of --fps that no file can say; None is none."""
    if fps is not None and not _SLOWEST <= fps <= _FASTEST:
        raise InputError(f"--fps {fps:g}: expected {_SLOWEST:g}..{_FASTEST:g} frames per second")


def write_frames(frames: Iterable[Any], path: Path, fps: float) -> str:
    """Frames [H, W, 3] uint8 -> a .gif, .webp or .mp4, or (00001.png) a folder of numbered frames;
    their count and size in words.

    They are written as they come: no more than a few are in memory, but for .webp and .gif, whose
    encoder keeps the compressed file.
    InputError if PyAV is not installed, for a frame rate that no file can say, and for frames that
    are too large for the format; UnwrittenError if the disk refuses.
    """
    if not _SLOWEST <= fps <= _FASTEST:
        raise InputError(
            f"{path}: {fps:g} frames per second; expected {_SLOWEST:g}..{_FASTEST:g}: the tokens "
            "say it; give another with --fps"
        )
    count, size = 0, ""

    def counted() -> Iterator[Any]:
        nonlocal count, size
        for frame in frames:
            count, size = count + 1, f"{frame.shape[1]}x{frame.shape[0]}"
            _check_sides(frame, path)
            yield frame

    if path.name == FIRST_FRAME:
        _save_folder(counted(), path.parent)
        return f"{count} frames of {size}"
    save = _SAVE.get(path.suffix, _save_video)
    try:
        with replacing(path) as draft:
            save(counted(), draft, path.suffix, fps)
    except OSError as error:
        raise unwritten(path, error) from None
    return f"{count} frames of {size}"


def _save_folder(frames: Iterable[Any], folder: Path) -> None:
    """Numbered frames; the first is written last, so that it tells that all are there."""
    import torch

    count, first = 0, None
    for count, frame in enumerate(frames, 1):
        image = torch.from_numpy(frame).permute(2, 0, 1)
        if count == 1:
            first = image
        else:
            write_image(image, folder / f"{count:05d}.png")
    for left in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):  # of a longer clip that lay here
        if int(left.stem) > count:
            left.unlink()
    write_image(first, folder / FIRST_FRAME)


def _check_sides(frame: Any, path: Path) -> None:
    """InputError for a frame [H, W, 3] that is larger than the format of `path` can hold."""
    form = path.suffix.removeprefix(".").upper()
    most = {"GIF": 65535, "WEBP": LONGEST["WEBP"]}.get(form)
    height, width = frame.shape[:2]
    if most is not None and max(height, width) > most:
        raise InputError(
            f"{path}: frames of {width}x{height}; {form} files have sides of {most:,} pixels or "
            "fewer: expected another format, such as mp4"
        )


def _save_animation(frames: Iterable[Any], draft: Path, suffix: str, fps: float) -> None:
    """A .gif (times in hundredths of a second) or a .webp (in thousandths)."""
    from PIL import Image

    images = (Image.fromarray(frame) for frame in frames)
    first = next(images)
    form = suffix.removeprefix(".").upper()
    options = {"save_all": True, "append_images": images, "loop": 0}
    options["duration"] = 1000 / fps if form == "GIF" else round(1000 / fps)
    first.save(draft, format=form, **options, **({} if form == "GIF" else {"quality": 90}))


def _save_video(frames: Iterable[Any], draft: Path, suffix: str, fps: float) -> None:
    """H.264 in yuv420p, which every player shows; MPEG-4 part 2 where PyAV has no x264.

    The format has even sides: of an odd one the last row or column is there twice.
    """
    from fractions import Fraction

    check_video(suffix)
    import av
    import numpy as np

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(draft), "w", format=suffix.removeprefix(".")) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "17"}
        else:
            stream.bit_rate = 8_000_000
        for number, frame in enumerate(frames):
            height, width = frame.shape[:2]
            if number == 0:
                stream.width, stream.height = width + width % 2, height + height % 2
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            image.pts, image.time_base = number, 1 / rate
            file.mux(stream.encode(image))
        file.mux(stream.encode())


_SAVE = {".gif": _save_animation, ".webp": _save_animation}


def check_video(suffix: str) -> None:
    """InputError if PyAV, which writes videos, is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError(
            f"writing {suffix} needs PyAV: pip install 'vistok[video]', or write a gif"
        ) from None


def _check_finite(pixels: Any, path: str | Path) -> None:
    if not math.isfinite(float(pixels.sum())):
        raise InputError(
            f"{path}: not written, since the image has values that are not finite; look at the "
            "settings of sampling and at the model's weights"
        )
