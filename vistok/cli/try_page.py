"""The page of `vistok try`: one HTML file of its own, light or dark, for desktop and phone."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from vistok.cli.try_measure import CODECS, Coded, Comparison
from vistok.cli.try_strip import told_bytes, told_psnr
from vistok.core.text import printable
from vistok.drawing import data_uri

GENERATOR = "vistok try"
_LARGEST = 1024  # pixels of a side that the page holds; larger images are shrunk for it
_LOSSLESS = 256  # pixels of a side up to which the page holds images without loss


def page(comparisons: Sequence[Comparison], model: str, files: Sequence[str]) -> str:
    """The page as text.

    Args:
        files: the images that were named; none = the built-in one.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vistok.cli", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("try.html").render(
        generator=GENERATOR,
        model=printable(model),
        codecs=list(CODECS),
        images=[_shown(one) for one in comparisons],
        next=_next(model, files),
    )


def _shown(one: Comparison) -> dict[str, Any]:
    """One comparison as the template takes it."""
    return {
        "name": printable(one.name),
        "prepared": one.prepared,
        "width": one.original.width,
        "height": one.original.height,
        "original": _uri(one.original),
        "coded": bool(one.steps[0].others),
        "columns": len(one.steps) + 1,
        "gaps": {name: one.runs(name) for name in CODECS} if one.steps[0].others else {},
        "steps": [
            {
                "tokens": f"{step.tokens:,}",
                "plural": "" if step.tokens == 1 else "s",
                "own": _cell(step.own),
                "bits": _bits(step.own, one),
                "others": {name: _cell(coded) for name, coded in step.others.items()},
            }
            for step in one.steps
        ],
    }


def _cell(coded: Coded) -> dict[str, Any]:
    return {
        "uri": None if coded.image is None else _uri(coded.image),
        "bytes": told_bytes(coded),
        "psnr": None if math.isnan(coded.psnr) else told_psnr(coded),
    }


def _bits(coded: Coded, one: Comparison) -> str:
    return "" if coded.bytes is None else f"{8 * coded.bytes / one.pixels:.3f}"


def _uri(image: Any) -> str:
    if max(image.size) > _LARGEST:
        image = image.copy()
        image.thumbnail((_LARGEST, _LARGEST))
    return data_uri(image, max(image.size) <= _LOSSLESS)


def _next(model: str, files: Sequence[str]) -> list[tuple[str, str]]:
    """(what for, command) of what a reader may type next."""
    name = shlex.quote(model)
    image = shlex.quote(files[0]) if files else "cat.jpg"
    of = f"--model {name}"
    return [
        ("A folder of images to small files, and back", f"vistok encode {of} photos/ --out codes"),
        ("", f"vistok decode {of} codes/ --out back"),
        ("A large image, tile by tile", f"vistok try {of} --tile {image}"),
        ("As few tokens as a quality allows", f"vistok encode {of} {image} --target-psnr 20"),
        ("The parts, tokens and license of the model", f"vistok info {name}"),
        ("A tokenizer of your own", "vistok train quickstart/tokenizer"),
    ]
