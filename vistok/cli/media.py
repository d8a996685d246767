"""Images and clips that commands write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vistok.config.errors import InputError
from vistok.storage.files import replacing, unwritten

LONGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels of a side that their files can have
LOSSY = tuple(LONGEST)  # formats with a quality
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


def write_clip(pixels: Any, path: Path, fps: float) -> None:
    """A clip [3, T, H, W] in 0..1 -> a .gif, or a video by its suffix (.mp4) through PyAV.

    InputError if PyAV is not installed and for a frame rate that no file can say; errors of `write`
    too.
    """
    _check_finite(pixels, path)
    if not _SLOWEST <= fps <= _FASTEST:
        raise InputError(
            f"{path}: {fps:g} frames per second; expected {_SLOWEST:g}..{_FASTEST:g}: the tokens "
            "say it, encode the video again"
        )
    frames = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    save = _save_gif if path.suffix == ".gif" else _save_video
    try:
        with replacing(path) as draft:
            save(frames, draft, path.suffix, fps)
    except OSError as error:
        raise unwritten(path, error) from None


def _save_gif(frames: Any, draft: Path, suffix: str, fps: float) -> None:
    from PIL import Image

    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(draft, format="GIF", save_all=True, append_images=rest, duration=1000 / fps, loop=0)


def _save_video(frames: Any, draft: Path, suffix: str, fps: float) -> None:
    from fractions import Fraction

    check_video(suffix)
    import av

    with av.open(str(draft), "w", format=suffix.removeprefix(".")) as file:
        height, width = frames.shape[1:3]
        stream = file.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            file.mux(stream.encode(image.reformat(stream.width, stream.height)))
        file.mux(stream.encode())


def check_video(suffix: str) -> None:
    """InputError if PyAV, which writes videos, is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError(
            f"writing {suffix} needs PyAV: pip install 'vistok[video]', or use --format gif"
        ) from None


def _check_finite(pixels: Any, path: str | Path) -> None:
    if not math.isfinite(float(pixels.sum())):
        raise InputError(
            f"{path}: not written, since the image has values that are not finite; look at the "
            "settings of sampling and at the model's weights"
        )
