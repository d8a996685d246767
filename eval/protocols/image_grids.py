"""The images of a report: strips of small images as data URIs, kept in results.json.

A grid is a list of strips (rows); a strip is one image file with its cells side by side, so that a
browser scales it as a whole and a report holds few files.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vistok.eval.context import Context
from vistok.eval.images import exact, to_uint8
from vistok.eval.jobs import Job
from vistok.eval.options import Options
from vistok.eval.protocols import gfid, pfid
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import Pair, Run, class_names
from vistok.metrics.perturbed import QUICK_GRID, Cell

COUNT = 8  # images of a strip
_CLASSES = 10  # rows of generated images at most
_LOSSLESS = 96  # pixels of a side up to which strips are PNG; larger ones would weigh too much
_SEARCHED = 256  # images among which one of each class is looked for


def jobs(pair: Pair, options: Options) -> list[Job]:
    """All grids of a tokenizer and its generators; they are the same on every rank."""
    settings = {"guidance": list(options.guidance)}
    drawn = [Job("pictures", _of_tokenizer, once=True)]
    work = lambda generator: lambda context: _of_generator(context, generator, options.guidance)
    return drawn + [Job("pictures", work(g), settings, g, once=True) for g in pair.generators]


def _of_tokenizer(context: Context) -> list[Row]:
    context.pictures.append(reconstructions(context))
    if context.spec.vocab:
        context.pictures.append(perturbed(context))
    return []


def _of_generator(context: Context, generator: Run, guidance: Sequence[float]) -> list[Row]:
    generator.generator.to(context.device).eval()
    if not gfid.readable(context, generator.generator):
        return []
    context.pictures += [generated(context, generator, scale) for scale in guidance]
    return []


def strip(pictures: Tensor) -> str:
    """[n, 3, H, W] uint8 -> a data URI of one image, n cells side by side."""
    from PIL import Image

    row = pictures.cpu().permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, n W, 3]
    image, file = Image.fromarray(row.numpy()), io.BytesIO()
    if pictures.shape[-1] <= _LOSSLESS:
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, "WEBP", quality=90)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def choose(dataset: Any, limit: int, count: int = COUNT) -> list[int]:
    """Places of `count` images: one of each class in turn as far as they go, else the first."""
    size = min(limit, len(dataset))
    if not dataset.classes:
        return list(range(min(count, size)))
    by_class: dict[int, list[int]] = {}
    for index in range(min(size, _SEARCHED)):
        by_class.setdefault(dataset[index].label, []).append(index)
    chosen, turn = [], 0
    while len(chosen) < min(count, size) and any(len(c) > turn for c in by_class.values()):
        places = [by_class[label] for label in sorted(by_class)]
        chosen += [own[turn] for own in places if len(own) > turn]
        turn += 1
    return chosen[:count]


def grid(
    kind: str,
    run: str,
    rows: list[tuple[str, Tensor]],
    columns: list[str],
    places: Sequence[dict[str, int]] = (),
) -> dict[str, Any]:
    """A grid of strips; rows are (label, [n, 3, H, W] uint8), `places` says more of each."""
    more = places or [{} for _ in rows]
    height, width = rows[0][1].shape[-2:]
    return {
        "kind": kind,
        "run": run,
        "size": [height, width],
        "columns": columns,
        "cells": len(rows[0][1]),
        "rows": [
            {"label": label, "uri": strip(pictures), **extra}
            for (label, pictures), extra in zip(rows, more, strict=True)
        ],
    }


def reconstructions(context: Context) -> dict[str, Any]:
    """Originals, then the reconstruction at each length, longest first."""
    index = choose(context.views.dataset, len(context.views))
    spec = context.spec
    with exact():
        batch = context.views.chosen(index)
        pixels, condition = batch.pixels, context.condition(batch)
        tokens = context.encode(batch, condition)
        rows, places = [("original", to_uint8(pixels))], [{}]
        for length in reversed(spec.eval_lengths):
            kept = spec.positions_in(length)
            places.append({"tokens": kept, "bits": kept * sum(spec.factor_bits)})
            cut = tokens if length == spec.max_prefix else tokens.prefix(length)
            rows.append((_tokens(context, length), to_uint8(context.decode(cut, condition))))
    return grid("reconstructions", context.run.name, rows, _labels(context, index), places)


def perturbed(context: Context) -> dict[str, Any]:
    """The same images decoded from perturbed tokens, in growing strength."""
    index = choose(context.views.dataset, len(context.views))
    spec, tokenizer = context.spec, context.tokenizer
    cells = [Cell(a, min(d, pfid.branch_codes(spec))) for a, d in (Cell(0.0, 200), *QUICK_GRID)]
    with exact():
        batch = context.views.chosen(index)
        pixels, condition = batch.pixels, context.condition(batch)
        quantized = tokenizer.quantize(context.latents(batch, condition))
        near = tokenizer.quantizer.neighbours(quantized.queries, max(c.delta for c in cells))
        rows = [("original", to_uint8(pixels))]
        for cell in cells:
            job = pfid.Decoding(spec.max_prefix, cell, False)
            moved = pfid.perturb(spec, quantized.indices, near, batch.index, job, context.seed)
            decoded = context.decode(pfid.tokens_of(context, moved, spec.max_prefix), condition)
            label = f"α {cell.alpha:g}, δ {cell.delta}" if cell.alpha else "not perturbed"
            rows.append((label, to_uint8(decoded)))
    return grid("perturbed", context.run.name, rows, _labels(context, index))


def generated(context: Context, generator: Any, guidance: float) -> dict[str, Any]:
    """Samples of the classes (of some, evenly spaced, if there are many) at one guidance."""
    model = generator.generator
    names = class_names(model) or ["samples"]
    shown = sorted({i * len(names) // _CLASSES for i in range(_CLASSES)})
    with exact():
        decoded = gfid.pictures(context, model, shown, COUNT, guidance)
    rows = [(names[label], row) for label, row in zip(shown, decoded, strict=True)]
    note = f"{len(shown)} of {len(names)} classes" if len(shown) < len(names) else ""
    return {
        **grid("generated", generator.name, rows, []),
        "guidance": guidance,
        "note": note,
    }


def _labels(context: Context, index: list[int]) -> list[str]:
    dataset = context.views.dataset
    if not dataset.classes:
        return [str(i) for i in index]
    return [dataset.classes[dataset[i].label] for i in index]


def _tokens(context: Context, length: int) -> str:
    unit = "block" if context.spec.prefix == "block" else "token"
    return f"{length} {unit}{'' if length == 1 else 's'}"
