"""A leaderboard's tables as plain values: protocols in words, cells, marks and links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from vistok.config.overrides import text_of
from vistok.core.text import printable
from vistok.eval.leaderboard.entries import Entry
from vistok.eval.leaderboard.ranks import Place, Table, bounds, rankable
from vistok.eval.report import tables as text_tables
from vistok.eval.results.compare import protocol_of
from vistok.eval.results.metrics import counted, metric, shown
from vistok.eval.results.rows import Row
from vistok.eval.results.text import (
    BELOW,
    BELOW_MEANS,
    FEW,
    FEW_MEANS,
    few,
    scale_text,
    tip,
    value_text,
)

_HASHES = ("features.sha256", "reference.manifest")
_SAID = (  # fields that the line of a protocol says in words
    *("metric", "features.name", "reference.name", "reference.split", "count", "size", "crop"),
    *("filter", "sampling.generator.guidance", "seed", "seeds", "condition"),
)


def shown_tables(found: Sequence[Table]) -> dict[str, list[dict[str, Any]]]:
    """{metric: its tables}, each with the line that tells its protocol from those of the others."""
    groups: dict[str, list[Table]] = {}
    for table in found:
        groups.setdefault(table.first.metric, []).append(table)
    return {name: _of_metric(own) for name, own in groups.items()}


def section(name: str, own: list[dict[str, Any]]) -> dict[str, Any]:
    """The tables of one metric with its title and meaning."""
    known = metric(name)
    anchor = "metric-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return {
        "name": name,
        "anchor": anchor,
        "heading": known.heading,
        "help": known.help,
        "better": known.better,
        "headline": bool(known.tile),
        "tables": own,
        "count": sum(len(table["rows"]) for table in own),
    }


def markdown_tables(table: Mapping[str, Any]) -> list[str]:
    """The heading and the table of one protocol in Markdown."""
    escape = text_tables.escape.markdown
    floor, intervals = table["floor"], table["intervals"]
    head = ["", "model", table["display"], *(["95 % interval"] if intervals else [])]
    head += ["floor"] if floor else []
    head += ["tokens", "bits", "license", "measured", "commit", "weights", "source"]
    body = []
    for row in table["rows"]:
        said = [row["rank"], row["name"] + (f", tokens of {row['of']}" if row["of"] else "")]
        said += [row["value"] + (f" ({row['flag']})" if row["flag"] else "")]
        said += [row["interval"]] if intervals else []
        said += [row["floor"]] if floor else []
        said += [row["tokens_text"], row["bits_text"], row["license"], row["date"], row["commit"]]
        said += [", ".join(one["short"] for one in row["weights"])]
        body.append([*map(str, said), ", ".join(one["name"] for one in row["sources"])])
    return [
        f"### {escape(' · '.join(table['line']))}",
        text_tables.markdown(head, body),
    ]


def marks(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Explanations of the marks that some number has."""
    rows = (row for one in sections for table in one["tables"] for row in table["rows"])
    values = "".join(row["value"] for row in rows)
    return [f"{said}." for mark, said in ((FEW, FEW_MEANS), (BELOW, BELOW_MEANS)) if mark in values]


def _of_metric(own: Sequence[Table]) -> list[dict[str, Any]]:
    protocols = [protocol_of(table.first) for table in own]
    lines = [_line(table.first) for table in own]
    shown = []
    for table, protocol, line in zip(own, protocols, lines, strict=True):
        alike = [p for p, other in zip(protocols, lines, strict=True) if other == line]
        fields = dict.fromkeys(field for one in alike for field in one if field not in _SAID)
        more = [f for f in fields if len({repr(one.get(f)) for one in alike}) > 1]
        parts = [f"{f.rpartition('.')[2]} {_value(f, protocol.get(f), 12)}" for f in more]
        shown.append(_table(table, protocol, (*line, *parts)))
    return shown


def _table(table: Table, protocol: Mapping[str, Any], line: Sequence[str]) -> dict[str, Any]:
    rows = [place.entry.row for place in table.places]
    name, spans = table.first.metric, [bounds(r) for r in rows if None not in (r.interval, r.value)]
    span = (min(low for low, _ in spans), max(high for _, high in spans)) if spans else (0.0, 0.0)
    return {
        "line": [printable(part) for part in line],
        "display": printable(table.first.display),
        "better": metric(name).better,
        "fields": [(field, _value(field, value)) for field, value in protocol.items()],
        "rows": [_row(place, span) for place in table.places],
        "intervals": any(row.interval is not None for row in rows),
        "floor": any(row.floor is not None for row in rows),
        "media": table.places[0].entry.media,
    }


def _line(row: Row) -> tuple[str, ...]:
    """A protocol in a line: network, images, count, size, crop, sampling."""
    noun = counted(row.metric, row.clip is not None)
    said = [] if row.features is None else [row.features.name]
    said.append(f"{row.reference.name}, {row.reference.split} split")
    said.append(f"{row.count:,} {noun}")
    if row.size is not None:
        side = "×".join(map(str, row.size[-2:]))
        said.append(side if row.clip is None else f"{row.clip[0]} frames of {side}")
    said += [f"crop {row.crop}"] if row.crop else []
    said += [row.filter] if row.filter else []
    said += [f"guidance {scale_text(row.guidance)}"] if row.guidance is not None else []
    if len(row.seeds) > 1:
        said.append(f"mean of {len(row.seeds)} seeds from {row.seeds[0]}")
    elif row.seed is not None:
        said.append(f"seed {row.seed}")
    said += [f"condition {row.condition}"] if row.condition != "none" else []
    return tuple(said)


def _value(field: str, value: Any, most: int | None = None) -> str:
    """A protocol's value as text; hashes at `most` letters."""
    if value is None:
        return "none"
    said = value if isinstance(value, str) else text_of(_plain(value))
    return printable(said[:most] if field in _HASHES else said)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _row(place: Place, span: tuple[float, float]) -> dict[str, Any]:
    entry, row = place.entry, place.entry.row
    low, high = (None, None) if row.value is None else bounds(row)
    printed = shown(row.number, row.metric)
    text = lambda value: shown(value, row.metric)
    sources = [
        {
            "name": source.name,
            "short": unquote(source.href).rpartition("/")[2] if "/" not in source.name else
            source.name,
            "href": source.href,
            "value": text(own.number),
        }
        for source, own in entry.sources
    ]  # fmt: skip
    values = dict.fromkeys(one["value"] for one in sources)
    return {
        "rank": "–" if place.rank is None else str(place.rank),
        "rankable": rankable(entry),
        "name": printable(row.run),
        "of": printable(entry.tokenizer),
        "number": row.value,
        "low": low,
        "high": high,
        "printed": printed,
        "value": value_text(row),
        "title": printable(_title(row)),
        "flag": f"files disagree: {', '.join(values)}" if entry.contradicts else "",
        "interval": "" if row.interval is None else "–".join(map(text, row.interval)),
        "whisker": None if None in (row.interval, row.value) else _whisker(row, span),
        "floor": "" if row.floor is None else text(row.floor.value),
        "tokens": entry.tokens,
        "tokens_text": _tokens(entry),
        "bits": entry.bits,
        "bits_text": "continuous" if entry.bits is None else f"{entry.bits:,}",
        "whole": entry.whole,
        "license": entry.license,
        "license_short": short_license(entry.license),
        "date": printable(row.date[:10]) or "no date",
        "when": printable(row.date),
        "commit": printable((row.commit or "no commit")[:12]),
        "weights": [
            {"part": printable(part), "short": digest[:12], "whole": digest}
            for part, digest in row.weights.items()
        ],
        "sources": sources,
        "search": printable(" ".join((row.run, entry.tokenizer, entry.license))).lower(),
    }


def _tokens(entry: Entry) -> str:
    if entry.tokens is None:
        return "–"
    return f"{entry.tokens:,}" if entry.whole else f"{entry.tokens:,} of {entry.whole_tokens:,}"


def short_license(text: str) -> str:
    """The name of a license without its explanations."""
    head = re.split(r" \(|, |: |; ", text, maxsplit=1)[0].strip()
    return head or text


def _title(row: Row) -> str:
    """What a pointer on a number shows: all digits, spread and floor, the reason of each mark."""
    number = "" if row.number is None else f"{row.number!r}"
    below = "below its floor" if row.below_floor else ""
    return "; ".join(filter(None, (number, tip(row), few(row), below, row.note)))


def _whisker(row: Row, span: tuple[float, float]) -> dict[str, float]:
    """Places of interval and value in percent of a table's range."""
    start, width = span[0], (span[1] - span[0]) or 1.0
    at = lambda value: round(100 * (value - start) / width, 2)
    low, high = bounds(row)
    return {"left": at(low), "width": round(at(high) - at(low), 2), "at": at(row.value)}
