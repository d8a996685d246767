"""`vistok list`: what there is by name. Released models, configs, parts, protocols, metrics."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator

import click

from vistok.cli.outputs import show
from vistok.config.errors import InputError, one_line_errors
from vistok.config.names import nearest
from vistok.core.text import printable

Row = dict[str, str | int | None]


def _configs() -> Iterator[Row]:
    from vistok.config.shipped import describe, trained

    for name, path in trained().items():
        yield {"name": name, "about": describe(path)}


def _studies() -> Iterator[Row]:
    from vistok.config.shipped import describe, shipped

    for name, path in shipped().items():
        if name.startswith("studies/"):
            yield {"name": name, "about": describe(path)}


def _released(kind: str) -> Iterator[Row]:
    from vistok.pretrained.sizes import SIZES
    from vistok.pretrained.table import releases

    if kind == "tokenizer":
        yield from _embedded()
    for name, (family, release) in releases().items():
        if family.makes != kind:
            continue
        row: Row = {"name": name}
        size = family.name
        if kind == "tokenizer":
            tokens, bits = SIZES[name]
            row |= {"tokens": tokens, "bits": bits}
            size = f"{tokens} tokens, " + ("continuous" if bits is None else f"{bits:,} bits")
        row |= {"about": f"{size}; {release.license}", "family": family.name}
        row |= {"license": release.license, "hub": release.hub or None}
        yield row | {"recipes": ", ".join(release.recipe)}


def _embedded() -> Iterator[Row]:
    """Tokenizers inside the package, in rows like those of released ones."""
    from vistok.pretrained.embedded import EMBEDDED, SIZES

    for name, folder in EMBEDDED.items():
        tokens, bits = SIZES[name]
        license_ = json.loads((folder / "config.json").read_text("utf-8"))["license"]
        row: Row = {"name": name, "tokens": tokens, "bits": bits}
        row |= {"about": f"{tokens} tokens, {bits:,} bits; in the package; {license_}"}
        yield row | {"family": "vistok", "license": license_, "hub": None, "recipes": ""}


def _parts() -> Iterator[Row]:
    from vistok.config.registry import entries, families

    importlib.import_module("vistok.train.config")  # registers the kinds of every family
    every = [one for family in sorted(families()) for one in entries(family).values()]
    files = [one.part.__module__ for one in every]
    for one in every:
        if one.family != "data":
            described = (sys.modules[one.part.__module__], one.part, one.config)
            if files.count(one.part.__module__) > 1:  # the file's first line is of several parts
                described = (*described[1:], described[0])
            about = _sentence(*described)
            yield {"name": f"{one.family} {one.kind}", "about": about}


def _data() -> Iterator[Row]:
    import vistok.data  # noqa: F401  (registers the kinds)
    from vistok.config.registry import entries

    for kind, entry in entries("data").items():
        yield {"name": kind, "about": _sentence(entry.config, entry.part)}


def _protocols() -> Iterator[Row]:
    config = importlib.import_module("vistok.eval.config")
    for name, protocol in config.PROTOCOLS.items():
        usual = "" if name in config.DEFAULT else " (on request: protocols=[" + name + "])"
        yield {"name": name, "about": _sentence(type(protocol)) + usual}


def _metrics() -> Iterator[Row]:
    for name, one in importlib.import_module("vistok.eval.results.metrics").METRICS.items():
        better = f"{one.better} is better. " if one.better else ""
        unit = f"in {one.unit}; " if one.unit else ""
        yield {"name": name, "about": f"{unit}{better}{one.help}", "better": one.better}


def _sentence(*described: object) -> str:
    """The first sentence of the first docstring among these that is their own."""
    for one in described:
        text = vars(one).get("__doc__")
        if text:
            first = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
            return first.partition(". ")[0].removesuffix(".")
    return ""


KINDS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "tokenizers": (
        "vistok-128 and released ones, for a MODEL",
        lambda: _released("tokenizer"),
    ),
    "generators": ("released generators, for a MODEL", lambda: _released("generator")),
    "configs": ("for vistok train", _configs),
    "studies": ("for vistok study", _studies),
    "parts": ("kinds of each part of a config", _parts),
    "data": ("kinds of data: data.kind=...", _data),
    "protocols": ("of vistok eval: protocols=[...]", _protocols),
    "metrics": ("in reports and results.json", _metrics),
}
"""Kind -> (what it is for, its rows)."""


@click.command("list")
@click.argument("words", nargs=-1, metavar="[KIND] [WORD]...")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead.")
@one_line_errors
def list_(words: tuple[str, ...], as_json: bool) -> None:
    """Print what comes with vistok: released models, configs, parts, protocols, metrics.

    KIND is tokenizers, generators, configs, studies, parts, data, protocols or metrics. WORDs
    choose names that hold all of them, or else sentences; without a KIND, of every kind.

    \b
    Examples:
      vistok list tokenizers
      vistok list configs titok
      vistok list parts quantizer
    """
    kind = next((word for word in words if word in KINDS), None)
    wanted = [word.lower() for word in words if word != kind]
    if not words and not as_json:
        _overview()
        return
    found = {}
    for name, (_, rows) in KINDS.items():
        if kind in (name, None):
            found[name] = _chosen(list(rows()), wanted)
    if not any(found.values()):
        raise InputError(f"{' '.join(words)}: nothing of this name; {nearest(words[0], KINDS)}")
    if as_json:
        rows = [{"kind": name} | row for name, several in found.items() for row in several]
        click.echo(json.dumps(rows, indent=1))
        return
    for name, rows in found.items():
        if rows:
            _print(name if kind is None else None, rows)


def _chosen(rows: list[Row], words: list[str]) -> list[Row]:
    """The rows whose names hold all words; if there are none, those whose sentences do."""
    for keys in (("name",), ("name", "about")):
        texts = [" ".join(str(row[key]) for key in keys).lower() for row in rows]
        fits = [all(w in text or w.removesuffix("s") in text for w in words) for text in texts]
        if any(fits):
            return [row for row, fit in zip(rows, fits, strict=True) if fit]
    return []


def _overview() -> None:
    width = max(map(len, KINDS))
    show("vistok list KIND [WORD]...")
    for name, (purpose, _) in KINDS.items():
        show(f"  {name:{width}}  {purpose}")
    show("e.g. vistok list tokenizers; vistok list configs quickstart; vistok list parts quantizer")


def _print(heading: str | None, rows: list[Row]) -> None:
    """Two columns; a name that is too long for the first stands on a line of its own."""
    formatter = click.HelpFormatter(width=click.get_current_context().terminal_width or _width())
    if heading is not None:
        formatter.write_heading(heading)
    formatter.write_dl([(str(row["name"]), str(row["about"])) for row in rows], col_max=34)
    click.echo(printable(formatter.getvalue().rstrip("\n"), keep="\n"))


def _width() -> int:
    """Columns of the terminal, 120 at most."""
    import shutil

    return max(60, min(120, shutil.get_terminal_size().columns))
