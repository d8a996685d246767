"""Tables of a leaderboard -> one self-contained page, and Markdown beside it.

Nothing in it depends on the day or the machine: the same files give the same bytes. All text goes
through jinja2's autoescape or `escape`; styles and scripts are inline and the page loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import field_validator

from vistok.config import Config
from vistok.config.names import nearest
from vistok.core.errors import InputError
from vistok.eval.leaderboard.collect import Source, collect, left_out
from vistok.eval.leaderboard.entries import entries_of
from vistok.eval.leaderboard.ranks import MEANING, tables
from vistok.eval.leaderboard.show import (
    markdown_tables,
    marks,
    section,
    short_license,
    shown_tables,
)
from vistok.eval.report.escape import markdown
from vistok.eval.report.files import check_replaceable
from vistok.eval.report.templating import TEMPLATES, environment
from vistok.eval.results.metrics import METRICS
from vistok.storage.files import write_text

MARK = "vistok leaderboard"  # what both files begin with, so that a later page replaces its own


class LeaderboardConfig(Config):
    """Config of a leaderboard."""

    out: str
    """HTML file to write; Markdown goes beside it."""
    title: str = "Leaderboard"
    """Heading of the page."""
    metrics: tuple[str, ...] = ()
    """Metrics to show: [rFID, gFID]; [] = all that have a better side."""
    overwrite: bool = False
    """true: files that this command did not write are replaced too."""

    @field_validator("metrics", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        """A single name stands for a list of one."""
        return (value,) if isinstance(value, str) else value

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in METRICS or not METRICS[name].better:
                known = tuple(name for name, one in METRICS.items() if one.better)
                raise InputError(f"unknown metric '{name}'; {nearest(name, known)}")
        return value


def write_leaderboard(
    folders: Sequence[str | Path], config: LeaderboardConfig
) -> tuple[list[Path], tuple[Source, ...]]:
    """Write the page and its Markdown: (the paths written, the files that were found).

    InputError, one line: no folder, no results file, or a file in the way that is not an earlier
    leaderboard.
    """
    page = Path(config.out)
    if page.suffix != ".html":
        raise InputError(f"out={page}: expected a name that ends in .html")
    if not folders:
        raise InputError("no folder given; expected one with results.json files")
    beside = page.with_suffix(".md")
    for path in (page, beside):
        check_replaceable(path, _is_ours, config.overwrite)
    sources = collect(folders, page)
    values = _values(sources, config)
    page.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((page, render_html(values)), (beside, render_markdown(values, page.name))):
        write_text(path, text)
    return [page, beside], sources


def render_html(values: dict[str, Any]) -> str:
    """The page."""
    read = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return (
        environment(True)
        .get_template("leaderboard.html.j2")
        .render(
            **values,
            style=read("report.css") + read("leaderboard.css"),
            script=read("tables.js") + read("leaderboard.js"),
        )
    )


def render_markdown(values: dict[str, Any], page: str) -> str:
    """The same tables as text."""
    lines = [f"<!-- {MARK} -->", f"# {markdown(values['title'])}", markdown(values["lead"])]
    lines += [f"With sorting and filters: {markdown(page)}.", values["ranks"]]
    lines += map(markdown, values["marks"])
    for one in values["sections"]:
        lines.append(f"## {markdown(one['heading'])}{_arrow(one['better'])}")
        lines += [markdown(one["help"])] if one["help"] else []
        for table in one["tables"]:
            lines += markdown_tables(table)
    lines.append("## Files")
    lines += [f"- {markdown(one['name'])}: {markdown(one['said'])}" for one in values["files"]]
    text = "\n\n".join(line for line in lines if line)
    return text.replace("\n\n- ", "\n- ").replace("## Files\n- ", "## Files\n\n- ") + "\n"


def _values(sources: Sequence[Source], config: LeaderboardConfig) -> dict[str, Any]:
    """What both formats show."""
    entries = entries_of(sources, config.metrics)
    grouped = shown_tables(tables(entries))
    sections = [section(name, own) for name, own in grouped.items()]
    models = {tuple(sorted(one.row.weights.items())) for one in entries}
    valid = [source for source in sources if source.results is not None]
    shown = sum(len(one["tables"]) for one in sections)
    licenses = sorted({short_license(one.license) for one in entries}, key=str.lower)
    return {
        "mark": MARK,
        "title": config.title,
        "lead": (
            f"{_many(len(entries), 'number')} of {_many(len(models), 'model')} from "
            f"{_many(len(valid), 'file')}, in {_many(shown, 'table')}: one for each protocol. "
            "Numbers of different tables do not compare, and are never ranked together."
        ),
        "ranks": MEANING,
        "marks": marks(sections),
        "sections": sections,
        "licenses": licenses,
        "media": sorted({one.media for one in entries}),
        "invalid": [{"name": s.name, "reason": s.reason} for s in sources if s.results is None],
        "files": [_file(source) for source in sources],
    }


def _file(source: Source) -> dict[str, Any]:
    """A line of the list of files: what is shown of it, or why nothing is."""
    if source.results is None:
        said = f"not valid: {source.reason}"
    else:
        without = left_out(source.results)
        count = len(source.results.rows) - sum(without.values())
        models = ", ".join(run["name"] for run in source.results.runs) or "no model"
        rest = ", ".join(f"{n:,} {why}" for why, n in without.items())
        said = f"{models}: {count:,} numbers" + (f"; not shown: {rest}" if rest else "")
    return {"name": source.name, "href": source.href, "valid": not source.reason, "said": said}


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _arrow(better: str) -> str:
    return {"higher": " ↑", "lower": " ↓"}.get(better, "")


def _is_ours(path: Path) -> bool:
    """True for a page or Markdown that this command wrote."""
    try:
        with path.open(encoding="utf-8") as file:
            return MARK in file.read(400)
    except (OSError, UnicodeDecodeError):
        return False
