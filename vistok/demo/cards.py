"""HTML of results: images with their numbers, escaped and whole in themselves."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from torch import Tensor

from vistok.demo.encoded import Decoded, Encoded
from vistok.demo.images import data_url, png
from vistok.demo.measure import GAIN, Quality, difference, quality


def message(text: str, kind: str = "note") -> str:
    """One plain line; `kind` is note or error. Nothing for no text."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="vt-line vt-{kind}" role="{role}">{html.escape(text)}</p>' if text else ""


def reconstruction(encoded: Encoded, shown: Decoded) -> str:
    """One model's row: numbers, the original, its reconstruction, the difference, downloads."""
    name, stem = encoded.model.name, _stem(encoded.model.name)
    made = png(shown.pixels)
    links = [link("PNG", made, f"{stem}-{shown.length}.png", "image/png")]
    if shown.file is not None:
        links.insert(0, link(".vtk", shown.file, f"{stem}-{shown.length}.vtk"))
    images = [
        figure(encoded.original, f"original, {_sides(encoded.original)}"),
        figure(made, f"from {shown.positions:,} {_plural('token', shown.positions)}"),
        figure(difference(shown.pixels, encoded.original), f"difference × {GAIN}, gray = none"),
    ]
    return card(name, _facts(encoded, shown), row(images), "".join(links))


def equal_bytes(encoded: Encoded, shown: Decoded) -> str:
    """The same image as WebP and JPEG of at most as many bytes as the .vtk file."""
    if shown.file is None:
        return message(f"{encoded.model.name}: its tokens are continuous and have no bytes.")
    most = len(shown.file)
    images = [figure(shown.pixels, _of(encoded.model.name, most, shown.quality))]
    for format in ("WebP", "JPEG"):
        one = encoded.squeezed(format, most)
        caption = _of(format, one.bytes, quality(one.pixels, encoded.original))
        if not one.fits:
            caption += f"; none has {most:,} bytes, this is the smallest"
        elif one.side < min(encoded.original.shape[1:]):
            caption += f"; stored at {one.side} px"
        images.append(figure(one.pixels, caption, faded=not one.fits))
    note = f'<span class="vt-quiet">{html.escape(encoded.model.name)}, WebP, JPEG</span>'
    return card(f"At most {most:,} bytes", [], row(images), note)


def card(title: str, numbers: Sequence[tuple[str, str, str]], body: str, beside: str = "") -> str:
    """A result below its title; `body` and `beside`, which stands at the right, are HTML."""
    return (
        f'<section class="vt-card"><header><h3>{html.escape(title)}</h3>'
        f'<span class="vt-links">{beside}</span></header>'
        f"{facts(numbers) if numbers else ''}{body}</section>"
    )


def facts(pairs: Sequence[tuple[str, str, str]]) -> str:
    """(name, value, what stands small behind it) in one line."""
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}"
        f"{f' <small>{html.escape(rest)}</small>' if rest else ''}</dd></div>"
        for name, value, rest in pairs
    )
    return f'<dl class="vt-facts">{cells}</dl>'


def row(figures: Sequence[str]) -> str:
    return f'<div class="vt-images">{"".join(figures)}</div>'


def figure(image: Tensor | bytes, caption: str, faded: bool = False) -> str:
    """An image ([3, H, W] in 0..1, or a PNG) above its caption."""
    data = image if isinstance(image, bytes) else png(image)
    look = ' class="vt-faded"' if faded else ""
    caption = html.escape(caption)
    return (
        f'<figure{look}><img src="{data_url(data)}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.2f}"


def link(label: str, data: bytes, name: str, kind: str = "application/octet-stream") -> str:
    """A link that saves bytes as a file of that name."""
    name = html.escape(name, quote=True)
    return f'<a class="vt-link" download="{name}" href="{data_url(data, kind)}">↓ {label}</a>'


def _facts(encoded: Encoded, shown: Decoded) -> list[tuple[str, str, str]]:
    spec = encoded.model.spec
    found = [("tokens", f"{shown.positions:,}", f"of {spec.length:,}")]
    if shown.bits is not None:
        pixels = encoded.original[0].numel()
        found += [
            ("bits", f"{shown.bits:,}", f"{shown.bits / pixels:.3f} per pixel"),
            ("bytes", f"{len(shown.file):,}", "as a .vtk file"),
        ]
    found.append(("PSNR", decibels(shown.quality.psnr), "dB"))
    if shown.quality.ssim is not None:
        found.append(("SSIM", f"{shown.quality.ssim:.3f}", ""))
    return found


def _of(name: str, size: int, found: Quality) -> str:
    return f"{name}: {size:,} bytes, {decibels(found.psnr)} dB"


def _stem(name: str) -> str:
    """The end of a model's name, as a file may be called."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in last) or "image"


def _sides(image: Tensor) -> str:
    return f"{image.shape[2]} × {image.shape[1]}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
