"""`vistok schema`: the JSON schema of configs, for editors."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from vistok.config.errors import InputError, UserError, one_line_errors


@click.command()
@click.argument("words", nargs=-1, metavar="[train|eval|study] | --write FILE|FOLDER...")
@click.option("--out", type=click.Path(), help="File to write; without it the schema is printed.")
@click.option(
    "--write",
    is_flag=True,
    help="Write schemas beside these YAML files (in a folder: into its subfolder `schema`, for all "
    "YAML files below it), and name them in the first line of each.",
)
@one_line_errors
def schema(words: tuple[str, ...], out: str | None, write: bool) -> None:
    """Give the JSON schema of a config: its keys, what they mean, choices and ranges.

    Editors with yaml-language-server (VS Code's YAML extension, Neovim, Emacs, JetBrains' own)
    complete and check YAML files whose first line names a schema, as those of vistok do. For your
    own: vistok schema --write my.yaml. With plugins=my.module the schema knows your own parts too.
    """
    if write:
        if out is not None:
            raise InputError("--out: with --write the schema's place is given; leave it out")
        _write([Path(word) for word in words])
        return
    from vistok.config.names import nearest
    from vistok.config.schema_files import PROGRAMS, schema_text
    from vistok.storage.files import write_text

    program = words[0] if words else "train"
    if program not in PROGRAMS or len(words) > 1:
        wrong = program if program not in PROGRAMS else words[1]
        raise InputError(f"{wrong}: no config of vistok; {nearest(wrong, PROGRAMS)}")
    text = schema_text(_document(program))
    if out is None:
        click.echo(text, nl=False)
        return
    write_text(Path(out), text)
    click.echo(f"wrote {out}")


def _document(program: str) -> dict[str, Any]:
    from vistok.config.plugins import plugin_words
    from vistok.config.schema import document
    from vistok.config.schema_files import FIELDS, PROGRAMS, fields_digest

    module, _, name = PROGRAMS[program].partition(":")
    made = document(getattr(importlib.import_module(module), name))
    own = {} if plugin_words() else {FIELDS: fields_digest()}
    return {"title": f"vistok {program}", **made, **own}


def _write(places: list[Path]) -> None:
    from vistok.config.schema_files import (
        FOLDER,
        PROGRAMS,
        file_name,
        schema_text,
        with_line,
    )
    from vistok.storage.files import write_text

    if not places:
        raise InputError(
            "--write: no YAML file or folder given; e.g. vistok schema --write my.yaml"
        )
    made: dict[Path, str] = {}  # schema file -> its program
    lines: dict[Path, str] = {}
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: no such file or folder")
        target = place / FOLDER if place.is_dir() else place.parent
        if place.is_dir():  # all of them, for files that are still to come
            made |= {target / file_name(program): program for program in PROGRAMS}
        for path in sorted(place.rglob("*.yaml")) if place.is_dir() else [place]:
            program = _program(path)
            if program is None:
                click.echo(f"{path}: not a config of vistok, left as it is")
                continue
            schema = target / file_name(program)
            made[schema] = program
            text = path.read_text("utf-8-sig")
            lines[path] = with_line(text, Path(os.path.relpath(schema, path.parent)).as_posix())
            if lines[path] == text:
                del lines[path]
    texts = {program: schema_text(_document(program)) for program in dict.fromkeys(made.values())}
    for path, program in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, texts[program])
        click.echo(f"wrote {path}")
    for path, text in lines.items():
        write_text(path, text)
        click.echo(f"changed the first line of {path}")


def _program(path: Path) -> str | None:
    """The program whose config a YAML file is; None if it is of none."""
    from vistok.config import read_yaml

    try:
        tree = read_yaml(path)
    except UserError as error:
        raise InputError(str(error)) from None
    return next((name for name, keys in _KEYS.items() if _any_of(tree, keys)), None)


_KEYS = {
    "study": ("runs",),
    "train": ("task", "steps", "batch_size", "optimizer", "data"),
    "eval": ("protocols", "report", "rfid", "gfid", "pfid", "features", "perceptual"),
}


def _any_of(tree: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return any(key in tree for key in keys)
