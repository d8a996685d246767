"""`vistok try`: in seconds, what a tokenizer keeps of an image at every length."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from vistok.cli.frequencies import codec_of
from vistok.cli.inputs import Source, find_sources
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.cli.running import device_option, place_on
from vistok.cli.shared import condition_of, open_tokenizer, text_option
from vistok.cli.work import Work
from vistok.config.errors import InputError, UserError, one_line_errors

_DEFAULT = "vistok-128"
_MOST = 16  # images of one page
_SEEN = "A photograph of scikit-image, which models may have seen in training. "
_HELD_OUT = "A photograph of scikit-image that the model was not trained on. "
_VIEW = 69  # of the data `photos`, validation: the face of the cat Chelsea


@click.command("try")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--model", default=_DEFAULT, show_default=True, help="The tokenizer.")
@click.option(
    "--out",
    default="vistok-try.png",
    show_default=True,
    help="File of the strip; the page lies beside it, with the ending .html.",
)
@click.option(
    "--tile", is_flag=True, help="The whole image in overlapping tiles, not a cropped one."
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in a browser, if any.")
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@device_option
@text_option
@overwrite_option
@one_line_errors
def try_(
    images: tuple[str, ...],
    model: str,
    out: str,
    tile: bool,
    show: bool,
    seed: int,
    device: str,
    text: str | None,
    overwrite: bool,
) -> None:
    """Show an image at every length of a tokenizer, beside JPEG and WebP of as many bytes.

    Without IMAGE a photograph that comes with scikit-image is taken; of a video its first frame.
    Images are center-cropped to the size of the model, or kept whole with --tile. Files of an
    earlier `vistok try` are replaced.

    \b
    vistok try cat.jpg
    """
    began = time.monotonic()
    strip, page = _places(out, overwrite)
    sources = find_sources(images, _endings(), "image").files
    if len(sources) > _MOST:
        raise InputError(f"{len(sources)} images; expected {_MOST} or fewer for one page")
    tokenizer = open_tokenizer(model)
    if tokenizer.shape.is_clip:
        raise InputError(
            f"{model}: takes clips of {tokenizer.shape.frames} frames, and vistok try shows "
            f"images; for clips: vistok encode {model} video.mp4, then vistok decode"
        )
    condition = condition_of(tokenizer, text)
    codec = codec_of(tokenizer, model, None) if tokenizer.spec().vocab else None
    place_on(tokenizer, device)
    comparisons = []
    with Work("try", max(1, len(sources)), "image") as work:
        for source in sources or (None,):
            try:
                one = _compared(tokenizer, codec, source, model, condition, seed, tile, work)
            except (UserError, OSError) as error:
                work.fail("the built-in image" if source is None else source.path, error)
                continue
            comparisons.append(one)
            work.succeed(_table(one))
    if comparisons:
        _write(comparisons, model, images, strip, page)
        said = f"{strip} and {page} in {time.monotonic() - began:.1f} s"
        say(f"{said}{_opened(page) if show else ''}")
    work.finish()


def _places(out: str, overwrite: bool) -> tuple[Path, Path]:
    """(file of the strip, file of the page), checked; those of an earlier call are replaced."""
    strip = Path(out)
    if strip.suffix.lower() != ".png":
        raise InputError(f"--out {out}: expected a name that ends in .png")
    for path in (strip, page := strip.with_suffix(".html")):
        claim([path], overwrite or _is_ours(path))
    return strip, page


def _is_ours(path: Path) -> bool:
    from vistok.cli.try_page import GENERATOR
    from vistok.core.regular_files import open_regular

    marks = f'name="generator" content="{GENERATOR}"', f"Software\0{GENERATOR}"  # page, strip
    if not path.is_file() or path.is_symlink():
        return False
    with open_regular(path, "rb") as file:
        beginning = file.read(1024)
    return any(mark.encode() in beginning for mark in marks)


def _endings() -> tuple[str, ...]:
    from vistok.data.kinds import folder, video

    return tuple(dict.fromkeys((*folder.ENDINGS, *video.ENDINGS)))


def _compared(
    tokenizer: Any,
    codec: Any,
    source: Source | None,
    model: str,
    condition: Any,
    seed: int,
    tile: bool,
    work: Work,
) -> Any:
    """The comparison of one image."""
    from vistok.cli import try_measure as measure
    from vistok.data.batch import to_uint8
    from vistok.data.decode.images import to_tensor

    hw = tokenizer.shape.image_size
    name, image, about = _read(source, hw, model)
    if tile:
        pixels = to_tensor(image)
    else:
        pixels = to_uint8(tokenizer.preprocess(image)[0]).cpu()
    lengths = measure.lengths_of(tokenizer.spec())
    told = lambda done, all_: work.detail(f"tile {done:,} of {all_:,}")
    rows, tiles = measure.reconstructions(
        tokenizer, codec, pixels, lengths, condition, seed, tile, told
    )
    work.detail("")
    size = f"{image.width}x{image.height}"
    if tile:
        done = f"{size} pixels in {tiles:,} tile{'s' if tiles > 1 else ''} of {hw[1]}x{hw[0]}"
    elif (image.height, image.width) == hw:
        done = f"{size} pixels"
    else:
        done = f"{size} pixels, center-cropped and resized to {hw[1]}x{hw[0]}"
    return measure.compare(
        rows,
        pixels,
        tokenizer.spec(),
        lengths,
        name=name,
        model=model,
        prepared=about + done,
        tiles=tiles,
    )


def _read(source: Source | None, hw: tuple[int, int], model: str) -> tuple[str, Any, str]:
    """(name, image of PIL, words on it) of a file, or of the built-in photograph."""
    from PIL import Image

    from vistok.data.decode import images
    from vistok.data.kinds import video

    if source is None:
        return _built_in(max(hw), model)
    path = source.path
    name = os.path.basename(path)
    if Path(path).suffix.lower() in video.ENDINGS and not path.lower().endswith(".gif"):
        from vistok.data.decode.video import clips

        frames, _ = clips.beginning(path, 1)
        if not frames:
            raise InputError(f"{path}: no frame can be decoded")
        return name, Image.fromarray(frames[0]), "First frame of a video. "
    return name, images.read(path), ""


def _built_in(size: int, model: str) -> tuple[str, Any, str]:
    """A view of a photograph that comes with scikit-image; vistok-128 was trained without it."""
    from PIL import Image

    from vistok.data.kinds.photos import PhotosConfig, PhotosDataset

    view = PhotosDataset(PhotosConfig(size=size), "val").sample(_VIEW)
    image = Image.fromarray(view.pixels.permute(1, 2, 0).contiguous().numpy())
    return "chelsea", image, _HELD_OUT if model == _DEFAULT else _SEEN


def _write(
    comparisons: list[Any], model: str, files: tuple[str, ...], strip: Path, page: Path
) -> None:
    from PIL.PngImagePlugin import PngInfo

    from vistok.cli import try_page, try_strip
    from vistok.storage.files import replacing, unwritten, write_text

    facts = PngInfo()
    facts.add_text("Software", try_page.GENERATOR)
    try:
        with replacing(strip) as draft:
            try_strip.draw(comparisons).save(draft, "PNG", pnginfo=facts)
    except OSError as error:
        raise unwritten(strip, error) from None
    write_text(page, try_page.page(comparisons, model, files))


def _table(one: Any) -> str:
    """One comparison as lines of a terminal."""
    from vistok.cli.try_strip import told_bytes, told_psnr

    names = list(one.steps[0].others)
    heads = ["tokens", "file", "PSNR", *(f"{name} of no more bytes" for name in names)]
    rows = [heads]
    for step in one.steps:
        cells = [f"{step.tokens:,}", told_bytes(step.own), told_psnr(step.own)]
        for name in names:
            other = step.others[name]
            small = f"{told_psnr(other)} ({told_bytes(other)})"
            cells.append(f"smallest: {told_bytes(other)}" if other.image is None else small)
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"{one.name}: {one.prepared}, by {one.model}", *lines])


def _opened(page: Path) -> str:
    """Open the page where a browser can be seen; words on it."""
    import webbrowser

    seen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if not seen or os.environ.get("CI"):
        return f"; open {page.name} in a browser"
    shown = webbrowser.open(page.resolve().as_uri())
    return ", opened in a browser" if shown else f"; open {page.name} in a browser"
