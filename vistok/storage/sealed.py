"""Files that carry their own digest, so that damage and edits show when they are read.

`sealed` gives the one text of a JSON record: its last key is the sha256 of the others.
`facts_of_files` gives what such a record says of the files beside it, which `check_files` compares.
A seal shows accidents and edits by hand; it keeps nobody away who writes a seal of his own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vistok.config.bounded import parse_json, read_text
from vistok.core.errors import UserError
from vistok.storage.weights import sha256

_LARGEST = 2**28  # bytes: outcomes of an evaluation hold every row
SEAL = "seal"


class SealError(UserError, ValueError):
    """A sealed file that was damaged or edited; the message is one line and names the file."""


def sealed(record: Mapping[str, Any]) -> str:
    """The sealed text of `record`, plain JSON data."""
    seal = hashlib.sha256(json.dumps(record, indent=1).encode()).hexdigest()
    return json.dumps({**record, SEAL: seal}, indent=1) + "\n"


def read_sealed(path: str | Path) -> dict[str, Any]:
    """The record of a file that `sealed` gave the text of; SealError for any other byte."""
    record, text = read_record(path)
    check_seal(path, record, text)
    return {name: value for name, value in record.items() if name != SEAL}


def read_record(path: str | Path) -> tuple[dict[str, Any], str]:
    """(a JSON object with its seal not looked at, its text for `check_seal`), for whoever must see
    its format first. Read once: the file may be replaced meanwhile."""
    try:
        text = read_text(path, _LARGEST, "utf-8")
        record = parse_json(text, path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise SealError(f"{path}: cannot be read as JSON ({reason})") from None
    if not isinstance(record, dict):
        raise SealError(f"{path}: expected a JSON object")
    return record, text


def check_seal(path: str | Path, record: Mapping[str, Any], text: str) -> None:
    """SealError unless `text`, of the file at `path`, is to the byte the sealed one of `record`."""
    body = {name: value for name, value in record.items() if name != SEAL}
    if text != sealed(body):
        raise SealError(f"{path}: its seal does not fit its text; it was damaged or edited")


def facts_of_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """{name: {"bytes": size, "sha256": hash}} of files, in the order given."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths}


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare files of a folder with what `facts_of_files` said; SealError names the first that
    is missing or differs, or that lies outside of the folder."""
    check_names(folder, files)
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            raise SealError(f"{path}: missing")
        if path.stat().st_size != facts["bytes"]:
            raise SealError(f"{path}: {path.stat().st_size} bytes; expected {facts['bytes']}")
        if sha256(path) != facts["sha256"]:
            raise SealError(f"{path}: its sha256 is not that of the manifest; it is damaged")


def check_names(source: str | Path, names: Iterable[str]) -> None:
    """SealError unless all are plain names of files, which lead nowhere else."""
    if any(name != Path(name).name for name in names):
        raise SealError(f"{source}: names a file outside of its folder; it is damaged")
