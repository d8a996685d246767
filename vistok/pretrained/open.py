"""Any name -> a model: a run, a saved folder, a hub id, a released name, official weights.

A name that looks like a path (it begins with `.`, `/`, `~` or `runs/`, ends in a suffix, or lies in
a folder that exists) is only ever looked for on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vistok.config.errors import InputError
from vistok.config.names import close, nearest
from vistok.generators import Generator
from vistok.pretrained import exchange
from vistok.pretrained.find import find
from vistok.pretrained.table import released_name, releases
from vistok.storage.foreign import SUFFIXES
from vistok.storage.hub import CONFIG, WEIGHTS, download, read_json
from vistok.tokenizer import Tokenizer

Kind = Literal["tokenizer", "generator"]
CONVERTED = Path("runs/released")  # where `saved_folder` puts released weights, below their name
_MARKS: dict[Kind, set[str]] = {
    "generator": {"kind", "spec", "tokenizer"},
    "tokenizer": {"encoder", "quantizer", "decoder"},
}
_EXPECTED = (
    "expected a run that training finished, a folder made by save_pretrained, official weights, a "
    "hub id owner/name, or a released name such as titok-l32"
)


@dataclass(frozen=True)
class Located:
    """Result of `locate`: a folder in our format, or weights in an official one."""

    name: str
    kind: Kind
    folder: Path | None
    """Folder of config.json and model.safetensors; None for official weights."""
    official: str | Path | None = None
    """Released name, file or folder, as `pretrained.load` takes it."""


def open(
    name: str | Path, *, expect: Kind | None = None, map_location: Any = "cpu"
) -> Tokenizer | Generator:
    """The tokenizer or generator behind a name, in evaluation mode.

    Args:
        expect: the kind that is needed; another one is an error.
    Raises a UserError of one line: nothing of that name (with the nearest one), weights that are
    broken or of another config, or a model of another kind.
    """
    place = locate(name, expect)
    if place.folder is None:
        found = find(place.official)
        return exchange.from_official(
            found.family, found.state, found.config, found.source, found.release, found.license
        ).to(map_location)
    model = Tokenizer if place.kind == "tokenizer" else Generator
    return model.from_pretrained(str(place.folder), map_location=map_location)


def saved_folder(name: str | Path, expect: Kind | None = None) -> Path:
    """The folder in our format behind a name; official weights are converted once, into
    `runs/released/NAME`. Errors as in `open`."""
    place = locate(name, expect)
    if place.folder is not None:
        if not (place.folder / WEIGHTS).is_file():
            raise InputError(f"{name}: no {WEIGHTS} in {place.folder}; save the model again")
        return place.folder
    stem = Path(place.official).resolve().stem if Path(place.official).exists() else str(name)
    folder = CONVERTED / stem
    if not (folder / WEIGHTS).is_file():
        open(name, expect=expect).save_pretrained(folder)
    return folder


def locate(name: str | Path, expect: Kind | None = None) -> Located:
    """The place behind a name, its weights unread; errors as in `open`."""
    path = Path(name).expanduser()
    if path.exists():
        found = _local(str(name), path)
    elif (release := released_name(str(name))) is not None:
        found = Located(str(name), "tokenizer", None, release)
    elif is_local(name):
        raise InputError(_nowhere(path))
    elif str(name).count("/") == 1:
        found = _local(str(name), download(str(name)))
    else:
        raise InputError(f"unknown release '{name}'; {nearest(str(name), releases())}; {_EXPECTED}")
    if expect is not None and found.kind != expect:
        raise InputError(f"{name}: not a {expect} but a {found.kind}; {_advice(expect)}")
    return found


def is_local(name: str | Path) -> bool:
    """True if a name can only mean a path of this machine, so that no hub is asked for it."""
    text, path = str(name), Path(name).expanduser()
    return bool(
        text.startswith((".", "/", "~", "runs/"))
        or re.search(r"\.[A-Za-z]\w*$", path.name)
        or ("/" in text and path.parent.is_dir())
    )


def kind_of(described: Mapping[str, Any]) -> Kind | None:
    """The kind of model that a config.json of ours describes; None for an official one."""
    for kind, keys in _MARKS.items():
        if keys <= set(described):
            return kind
    return None


def _local(name: str, path: Path) -> Located:
    if path.is_file():
        if path.suffix in SUFFIXES:
            return Located(name, "tokenizer", None, path)
        raise InputError(f"{name}: a file that holds no weights; {_EXPECTED}")
    for folder in (path / "model", path):
        if (folder / CONFIG).is_file():
            described = read_json(folder / CONFIG)
            kind = kind_of(described)
            if kind is not None:
                return Located(name, kind, folder)
            if "kind" in described:  # of ours, and something else: official configs have no kind
                raise InputError(
                    f"{folder / CONFIG}: kind {described['kind']!r} is neither a tokenizer nor a "
                    f"generator; {_EXPECTED}"
                )
    if (path / "config.yaml").is_file() and (path / "metrics.jsonl").is_file():
        raise InputError(
            f"{name}: no model/{CONFIG}; training writes it when it finishes: start the same "
            "command again"
        )
    if not any(file.suffix in SUFFIXES for file in path.iterdir()):
        raise InputError(f"{name}: no {WEIGHTS} in it or in its 'model' folder; {_EXPECTED}")
    return Located(name, "tokenizer", None, path)


def _nowhere(path: Path) -> str:
    """The error of a path that does not exist, with the nearest name beside it."""
    up = path.parent
    while not up.is_dir():
        up = up.parent
    missing = path.parts[len(up.parts)]
    there = sorted(p.name for p in up.iterdir() if not p.name.startswith("."))
    like = close(missing, there)
    hint = f"did you mean {up / like}? " if like else ""
    return f"{path}: no such file or folder (there is no '{missing}' in {up}); {hint}{_EXPECTED}"


def _advice(expect: Kind) -> str:
    if expect == "generator":
        return "expected a run of task.kind=generator"
    return "name the tokenizer whose tokens it learned"
