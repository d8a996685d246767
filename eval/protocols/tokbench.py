"""Text and faces in reconstructions: TokBench (arXiv 2505.18142), from a local copy of it.

Each image is put on a black square of the tokenizer's side, encoded, decoded, rounded to 8 bits
and brought back to its own sides (`tokbench.canvas`); then words are read on it and faces compared
with the original's (`tokbench.readers`). Accuracy, 1 - edit distance and cosine similarity are
averaged in groups of relative size (`tokbench.scores`).

TokBench's clips are not measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from vistok.config import ConfigError
from vistok.core.records import Batch
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import network_of
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, register
from vistok.eval.results.rows import Reference, Row
from vistok.eval.systems.runs import System
from vistok.eval.tokbench.annotations import (
    TEXT_SETS,
    Part,
    TextSet,
    read_face_part,
    read_text_part,
)
from vistok.eval.tokbench.canvas import Stored
from vistok.eval.tokbench.readers import (
    ANTELOPE,
    FACE_READERS,
    PARSEQ,
    TEXT_READERS,
    check_reader,
)
from vistok.eval.tokbench.scores import FACE_EDGES, TEXT_EDGES, Tally
from vistok.eval.tokbench.tasks import FaceTask, Squares, Task, TextTask

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

NAME = "tokbench"
_RESIZED = "resized"  # images that were scaled to the square and back, and never encoded


class TokBenchConfig(ProtocolConfig):
    path: Selects[str | None] = None
    """Folder of TokBench: annotations/ and images/ (images.zip of Junfeng5/TokBench unpacked)."""
    parts: Selects[tuple[Part, ...]] = ("text", "faces")
    """What is measured: text, faces."""
    sets: tuple[TextSet, ...] = TEXT_SETS
    """Its sets with text; published numbers take all eight."""
    images: int | None = Field(default=None, ge=1)
    """Use only the first so many images of each set; null = all."""
    text_edges: tuple[float, ...] | None = None
    """Edges of the groups that words are averaged in, by the size of their letters relative to the
    image; null = the published ones for sides 256, 512 and 1024."""
    face_edges: tuple[float, ...] | None = None
    """The same for faces."""
    stored: Stored = "published"
    """published: a reconstruction goes through a file of its image's format first, JPEG of quality
    75 for .jpg; exact: it does not."""
    limited: bool = True
    """true: as published, words are read 64 at a time, the reader stops a letter after the longest
    of them, and 64 with a letter that it cannot write are left out. false: each by itself."""
    text_reader: str = PARSEQ
    """Reader of words: doctr-parseq."""
    text_weights: Selects[str | None] = None
    """Its weight file, if it is not in the usual place."""
    face_reader: str = ANTELOPE
    """Network that compares faces: antelopev2."""
    face_weights: Selects[str | None] = None
    """Its weight file, if it is not in the usual place."""
    every_length: Selects[bool] = False
    """true: measured at every prefix length, not at the full one alone."""

    @field_validator("text_reader")
    @classmethod
    def _known_reader(cls, value: str) -> str:
        return check_reader(value, TEXT_READERS)

    @field_validator("face_reader")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return check_reader(value, FACE_READERS)

    @field_validator("text_edges", "face_edges")
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None:
            Tally(value, ())
        return value


_DEFAULTS = TokBenchConfig().model_dump()
_TEXT_KEYS = ("sets", "text_edges", "limited", "text_reader")
_FACE_KEYS = ("face_edges", "face_reader")
# Keys that do not count for a part, as its rows have them: at their defaults.
_OTHER = {
    part: {key: _DEFAULTS[key] for key in (*others, "text_weights", "face_weights")}
    for part, others in (("text", _FACE_KEYS), ("faces", _TEXT_KEYS))
}


@register
class TokBench(Protocol):
    """Text and faces in reconstructions (TokBench): words read, faces recognized."""

    name = NAME
    Config = TokBenchConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        """One for text and one for faces. Annotations and readers are looked at here: numbers
        depend on them, not on their paths, and a mistake shows before any work."""
        own, device = config.tokbench, config.torch_device
        if own.path is None:
            raise ConfigError(
                "tokbench.path: not given; expected the folder of TokBench "
                "(annotations/ and images/ of Junfeng5/TokBench): tokbench.path=FOLDER"
            )
        jobs = []
        for part in dict.fromkeys(own.parts):
            if part == "text":
                bench = read_text_part(own.path, own.sets, own.images)
                reader = TEXT_READERS[own.text_reader](own.text_weights, device)
                task = TextTask(bench, reader, own.limited)
            else:
                bench = read_face_part(own.path, own.images)
                reader = FACE_READERS[own.face_reader](own.face_weights, device)
                task = FaceTask(bench, reader)
            only = own.model_copy(update={**_OTHER[part], "path": None, "parts": (part,)})
            jobs.append(Job(self, only, data=task, networks=(reader, bench)))
        return jobs

    def run(self, context: Context, config: TokBenchConfig) -> list[Row]:
        """T-ACC and T-NED, or F-Sim, of each group and their mean."""
        task, spec = context.job.data, context.spec
        reason = _misfit(context)
        side = context.sides[0]
        text = task.bench.part == "text"
        edges = config.text_edges if text else config.face_edges
        edges = edges or (TEXT_EDGES if text else FACE_EDGES).get(side)
        if not reason and edges is None:
            key = "text_edges" if text else "face_edges"
            reason = (
                f"no published groups for images of {side} pixels, but for "
                f"{', '.join(map(str, TEXT_EDGES))}; give {NAME}.{key}"
            )
        if reason:
            context.skip(f"{NAME}, {task.bench.part}", reason)
            return []
        lengths = spec.eval_lengths if config.every_length else (spec.max_prefix,)
        resized = Tally(edges, task.names)
        tallies = {length: Tally(edges, task.names) for length in lengths}
        title = f"{context.run.name}: {task.noun} of {task.bench.name}"
        for index in context.numbers(title, len(task.bench.scenes), [tallies, resized]):
            squares = Squares(task, index.tolist(), side, config.stored)
            resized.add(squares.scores(squares.pixels))
            tokens = context.encode(Batch(index, squares.pixels.to(context.device) / 255), None)
            for length, tally in tallies.items():
                cut = tokens if length == spec.max_prefix else tokens.prefix(length)
                tally.add(squares.scores(to_uint8(context.decode(cut, None, index))))
        resized = resized.reduce()
        return [
            row
            for length, tally in tallies.items()
            for row in _rows(context, task, tally.reduce(), resized, length)
        ]


def _misfit(context: Context) -> str:
    """Why the tokenizer cannot take these images; "" if it can."""
    config = context.tokenizer.config
    if len(set(context.sides)) > 1:
        sides = "x".join(map(str, context.sides))
        return f"its images lie on squares; this tokenizer takes {sides}"
    if getattr(config, "text", None) is None or all(
        how.optional for how in config.reading.values()
    ):
        return ""
    return "the tokenizer reads text, and these images have none"


def _rows(context: Context, task: Task, tally: Tally, resized: Tally, length: int) -> list[Row]:
    """A row for each group and one for their mean, of each measure."""
    bench, reader, side = task.bench, task.reader, context.sides[0]
    *counts, outside = tally.counts
    common = {
        "features": network_of(reader),
        "reference": Reference(
            name=bench.name,
            split=bench.part,
            manifest=bench.sha256,
            count=len(bench.scenes),
            described=", ".join(bench.sets),
        ),
        "crop": f"none: on a black square of {side} pixels",
        "filter": "lanczos",
        "size": (side, side),
        "length": length,
        "condition": "none",
    }
    notes = [
        f"mean of the groups {', '.join(tally.labels)} ({', '.join(map(str, counts))} {task.noun})",
        f"{outside} of {outside + sum(counts)} {task.noun} are in no group" if outside else "",
        f"{task.left_out} {task.noun} with or beside letters that the reader cannot write are left "
        "out"
        if task.left_out
        else "",
        f"{_RESIZED}: the same images, never encoded",
        reader.note,
    ]
    rows = []
    for name in tally.names:
        means, ceiling = tally.means(name), resized.means(name)
        rest = {"measured": {_RESIZED: ceiling.mean, f"every {task.noun[:-1]}": means.every}}
        found = [
            (value, {"count": count, "point": {"group": label}, "measured": {_RESIZED: best}})
            for label, count, value, best in zip(
                tally.labels, counts, means.groups, ceiling.groups, strict=True
            )
        ]
        note = "; ".join(filter(None, notes))
        found.append((means.mean, {"count": sum(counts), "note": note, **rest}))
        for value, about in found:
            if value is not None:
                about["measured"] = _finite(about["measured"])
                rows.append(context.row(name, value, **about, **common))
            elif "point" in about:
                reason = f"no {task.noun} of that size; no mean either"
                context.skip(f"{name}, {about['point']['group']}", reason)
    return rows


def _finite(measured: dict[str, float]) -> dict[str, float]:
    """Those that JSON has numbers for; the row's own value says what the others are."""
    return {name: value for name, value in measured.items() if math.isfinite(value)}
