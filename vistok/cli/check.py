"""`vistok check`: a data set before training on it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vistok.cli.outputs import claim, overwrite_option
from vistok.config.errors import InputError, explain


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA... [KEY=VALUE]...")
@click.option("--out", type=click.Path(dir_okay=False), help="Write every finding here, as JSON.")
@click.option("--workers", default=0, show_default=True, help="Processes that read and decode.")
@click.option("--limit", type=click.IntRange(1), help="Look at the first samples only.")
@overwrite_option
def check(
    data: tuple[str, ...], out: str | None, workers: int, limit: int | None, overwrite: bool
) -> None:
    """Scan DATA before training on it: sizes, classes, duplicates, what cannot be read.

    DATA: a folder of images, .parquet files or globs, .tar shards, clips, a data set saved by
    Hugging Face's library, a token cache, or a YAML config with a key `data`; then KEY=VALUE of the
    data config, e.g. label_column=null. kind=KIND says how DATA are read (without DATA, as in
    kind=photos size=64, the settings are the whole config). Exit code 0: nothing found; 1: usable,
    with findings; 2: cannot be scanned, or not one sample is usable.

    \b
    Examples:
      vistok check my/images
      vistok check "shards/{000..009}.tar" --workers 4 --out findings.json
    """
    import json
    import sys

    from vistok.core.text import printable
    from vistok.data.check.findings import table
    from vistok.data.check.run import run_check
    from vistok.storage.files import write_text

    paths = [item for item in data if "=" not in item or Path(item).exists()]
    try:
        if workers < 0:
            raise InputError(f"--workers {workers}: expected 0 or more")
        if out is not None:
            claim([out], overwrite)
        report = run_check(paths, [item for item in data if item not in paths], workers, limit)
        if out is not None:
            write_text(out, json.dumps(report, indent=1))
    except Exception as error:
        if os.environ.get("VISTOK_DEBUG"):
            raise
        line, code = explain(error)
        click.echo(line, err=True)
        sys.exit(2 if code == 1 else code)
    click.echo(printable(table(report), keep="\n"))
    sys.exit(report["exit_code"])
