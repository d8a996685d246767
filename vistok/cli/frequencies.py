"""`vistok frequencies`: the table that lets `vistok encode` code tokens by their frequencies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vistok.cli.completion import models
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.cli.shared import open_tokenizer
from vistok.config.errors import InputError, one_line_errors
from vistok.core.regular_files import open_regular

_ROWS = 1024  # of a cache, at a time


@click.command()
@click.argument("model", shell_complete=models)
@click.argument("cache", type=click.Path())
@click.option("--out", help="File of the table; default: beside MODEL's weights.")
@overwrite_option
@one_line_errors
def frequencies(model: str, cache: str, out: str | None, overwrite: bool) -> None:
    """Count the codes of CACHE, tokens of many images that a cache job wrote with MODEL.

    `vistok encode` and `decode` find the table beside the weights. Files that are written with it
    are smaller, and need the same table to be read: keep it with the model.

    \b
    Examples:
      vistok frequencies runs/mine runs/mine/tokens/train
    """
    from vistok.data.token_cache import TokenCache
    from vistok.storage.files import write_bytes
    from vistok.tokens.frequency_table import FrequencyTable

    tokenizer = open_tokenizer(model)
    target = _default(model) if out is None else Path(out)
    if target is None:
        raise InputError(
            f"{model}: no folder of this machine; say where the table goes, --out FILE"
        )
    found = TokenCache(cache)
    made_by = tokenizer.codes_sha256()
    written = str(found.meta["tokenizer"].get("codes_sha256"))
    if written != made_by or not found.spec.vocab:
        raise InputError(
            f"{cache}: tokens of another tokenizer (weights {written[:8]}) than {model} (weights "
            f"{made_by[:8]}); expected a cache that was made with it"
        )
    claim([target], overwrite)
    table = FrequencyTable.count(found.spec, made_by, _rows(found))
    write_bytes(target, table.to_bytes())
    say(f"{target}: frequencies {table.name} of {table.images} images")


def _rows(cache: Any) -> Iterator[Any]:
    """Indices [n, L, F] of all rows."""
    import torch

    for start in range(0, cache.count, _ROWS):
        rows = range(start, min(cache.count, start + _ROWS))
        places = [divmod(row, cache.crops) for row in rows]
        yield torch.stack([cache.row(*place)[0] for place in places])


def codec_of(tokenizer: Any, model: str, file: str | None, write: bool = True) -> Any:
    """The codec of a model's files, with the table of `file` or the one beside its weights.

    A table that merely lies there and cannot be used is left out when reading, and mentioned when
    writing; one that was named is an error.
    """
    from vistok.tokens.codec import Codec
    from vistok.tokens.entropy_coding import coder_version

    spec, made_by = tokenizer.spec(), tokenizer.codes_sha256()
    block = tokenizer.block_spec
    path = _default(model) if file is None else Path(file)
    if path is None or (file is None and not path.is_file()):
        return Codec(spec, made_by, name=model, block=block)
    try:
        codec = Codec(spec, made_by, _read(path), model, block)
    except InputError as error:
        if file is not None or write:
            raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
        return Codec(spec, made_by, name=model, block=block)
    if write and file is None and coder_version() is None:
        click.echo(
            "codes are only packed: pip install 'vistok[coding]' for smaller files", err=True
        )
        return Codec(spec, made_by, name=model, block=block)
    return codec


def _read(path: Path) -> Any:
    from vistok.tokens.frequency_table import LARGEST, FrequencyTable

    with open_regular(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InputError(f"more than {LARGEST} bytes; expected a table of vistok frequencies")
    return FrequencyTable.from_bytes(data)


def _default(model: str) -> Path | None:
    """Place of the table beside a model's weights; None for one without a folder."""
    from vistok import pretrained
    from vistok.tokens.frequency_table import FILE

    folder = pretrained.locate(model, "tokenizer").folder
    return None if folder is None else folder / FILE
