"""Output files of commands: their names, and that nothing is overwritten without a word.

Everything is checked before the work begins: each output has a name of its own, its folder can be
written, and what lies there is not replaced unless `--overwrite` says so. Files are then written
beside their place and renamed into it, so that a link lying there is never followed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from vistok.config.errors import InputError
from vistok.core.text import printable
from vistok.core.verbosity import quiet
from vistok.storage.files import unwritten

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace output files that exist already."
)


def say(line: object) -> None:
    """Print a line on what was done, unless the verbosity is quiet; `show` for results."""
    if not quiet():
        show(line)


def show(line: object) -> None:
    """Print a line; what does not print in names that came from files is escaped."""
    click.echo(printable(line))


def output_names(
    files: Sequence[str], suffix: str, below: Sequence[str] | None = None
) -> list[Path]:
    """One name with `suffix` for each input file, no two of them alike.

    `a/1.jpg` gives 1.vtk. Where two files would have one name, all keep their folders, below the
    folder that they share (a/1.vtk, b/1.vtk); where that is not enough, their suffixes too
    (cat.png.vtk, cat.jpg.vtk). InputError for a file that is named twice.

    Args:
        below: path of each file below the folder that was named, which is kept; None = its name.
    """
    named: dict[str, str] = {}
    for file in files:
        whole = os.path.abspath(file)
        if whole in named:
            raise InputError(f"{file}: named twice (as {named[whole]} too); name each file once")
        named[whole] = file
    paths = [Path(path) for path in named]
    shared = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    folders = [path.relative_to(shared) for path in paths]
    bare = lambda some: [path.with_name(path.stem) for path in some]
    tries = [bare([Path(path.name) for path in paths])]
    if below is not None:
        inside = [Path(one) for one in below]
        tries = [bare(inside), inside]
    for candidates in (*tries, bare(folders), folders):
        if len(set(candidates)) == len(candidates):
            break
    return [path.with_name(path.name + suffix) for path in candidates]


def claim(paths: Iterable[str | Path], overwrite: bool) -> None:
    """Make the folders of output files and see that each file can be written.

    Raises InputError for one that exists (unless `overwrite`) or is a folder, UnwrittenError for a
    folder that cannot be made or written to.
    """
    folders = set()
    for path in map(Path, paths):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; expected the name of a file")
        if os.path.lexists(path) and not overwrite:
            raise InputError(
                f"{path}: exists already; give --overwrite to replace it, or another --out"
            )
        folders.add(path.parent)
    for folder in sorted(folders):
        claim_folder(folder)


def claim_folder(folder: str | Path) -> None:
    """Make a folder and see that files can be written to it; UnwrittenError otherwise."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritten(folder, error) from None
