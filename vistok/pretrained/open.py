"""Any name -> a model: a run, a saved folder, an id of the hub, a released name, official weights.

A name that begins with `hf:` is an id of the hub; every other one is a released name or a path of
this machine, and a path that does not exist is never asked of the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistok.config import load_plugins
from vistok.config.errors import ConfigError, InputError
from vistok.config.names import close, nearest
from vistok.generators import Generator
from vistok.pretrained import exchange
from vistok.pretrained.base import Kind
from vistok.pretrained.embedded import EMBEDDED
from vistok.pretrained.find import CONFIGS, Found, companion_of, find, kind_of_weights
from vistok.pretrained.table import FAMILIES, release_of, released_name, releases
from vistok.storage.files import write_text
from vistok.storage.foreign import CODE, SUFFIXES, torchscript
from vistok.storage.hub import (
    CONFIG,
    HUB,
    WEIGHTS,
    download,
    float_type,
    hub_id,
    local_path,
    nowhere,
    placed,
    read_json,
)
from vistok.storage.origin import RECORD, TENSORS
from vistok.storage.trained import unlike_its_run
from vistok.storage.weights import sha256
from vistok.tokenizer import Tokenizer

CONVERTED = Path("runs/released")  # where `saved_folder` puts released weights, below their name
_FILES = (CONFIG, WEIGHTS, RECORD, TENSORS)  # of a model of the hub
_SOURCE = "source.sha256"  # beside a conversion: hash of the files it was made of
_READ = (*SUFFIXES, ".json", ".yaml", ".yml")  # suffixes of official weights and configs
_MARKS: dict[Kind, set[str]] = {
    "generator": {"kind", "spec", "tokenizer"},
    "tokenizer": {"encoder", "quantizer", "decoder"},
}
_EXPECTED = (
    "expected a run that training finished, a folder made by save_pretrained, official weights, "
    "hf:owner/name of the hub, vistok-128, or a released name such as titok-l32"
)


@dataclass(frozen=True)
class Located:
    """Result of `locate`: a folder in our format, or weights in an official one."""

    name: str
    kind: Kind | None
    """None: official weights that have to be read to say more."""
    folder: Path | None
    """Folder of config.json and model.safetensors; None for official weights."""
    official: str | Path | None = None
    """Released name, file or folder, as `pretrained.load` takes it."""


def open(
    name: str | Path,
    *,
    expect: Kind | None = None,
    plugins: str | Sequence[str] = (),
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    **hub: Any,
) -> Tokenizer | Generator:
    """The tokenizer or generator behind a name, in evaluation mode.

    Args:
        expect: the kind that is needed; another one is an error.
        plugins: module, or modules, of your own parts to import first.
        dtype: type of the weights (torch.bfloat16 or "bf16", ...); quantizers stay in fp32. None =
            fp32.
        device: where the weights go; None = "cpu".
        revision: of an id of the hub.
        hub: cache_dir, force_download, local_files_only and token of `huggingface_hub`.
    Raises a UserError of one line: nothing of that name (with the nearest one), weights that are
    broken or of another config, or a model of another kind.
    """
    load_plugins(plugins)
    if dtype is not None:
        dtype = float_type(dtype)  # before anything is read
    place = locate(name, expect, revision=revision, **hub)
    model = _load(place, dtype, device, bool(hub.get("local_files_only")))
    if place.kind is None:
        _check_kind(name, model.makes, expect)
    return model


def model_of(found: Found) -> Tokenizer | Generator:
    """The model of official weights that were found; errors as in `exchange.from_official`."""
    return exchange.from_official(
        found.family,
        found.state,
        found.config,
        found.source,
        found.release,
        found.license,
        found.inside,
    )


def _load(
    place: Located,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> Tokenizer | Generator:
    if place.folder is None:
        found = find(place.official, local_files_only=local_files_only)
        return placed(model_of(found), dtype, device)
    model = Tokenizer if place.kind == "tokenizer" else Generator
    return model.from_folder(place.folder, dtype, device)


def saved_folder(name: str | Path, expect: Kind | None = None) -> Path:
    """The folder in our format behind a name; official weights are converted once, into
    `runs/released/NAME`. Errors as in `open`."""
    place = locate(name, expect)
    if place.folder is not None:
        if not (place.folder / WEIGHTS).is_file():
            raise InputError(f"{name}: no {WEIGHTS} in {place.folder}; save the model again")
        return place.folder
    folder, source = _conversion(place.official)
    if not (folder / WEIGHTS).is_file():
        _load(place).save_pretrained(folder)
        if source is not None:
            write_text(folder / _SOURCE, source + "\n")
    return folder


def locate(
    name: str | Path, expect: Kind | None = None, *, revision: str | None = None, **options: Any
) -> Located:
    """The place behind a name, the numbers of its weights unread; arguments and errors as in
    `open`."""
    path, hub = local_path(name), hub_id(name)
    release = released_name(str(name))
    if revision is not None and (hub is None or release is not None):
        raise InputError(
            f"{name}: revision={revision} is for models of the hub that vistok saved; leave it "
            f"out, or name one as {HUB}owner/name"
        )
    if hub is None and path.exists():
        found = _local(str(name), path)
    elif str(name) in EMBEDDED:
        found = _local(str(name), EMBEDDED[str(name)])
    elif release is not None:
        found = Located(str(name), release_of(release)[0].makes, None, release)
    elif hub is not None:
        found = _local(str(name), download(hub, _FILES, revision=revision, **options))
    elif "/" in str(name) or path.suffix in SUFFIXES or str(name).startswith((".", "~")):
        raise ConfigError(nowhere(name, _EXPECTED))
    else:
        raise ConfigError(_unknown(str(name)))
    if found.kind is not None:
        _check_kind(name, found.kind, expect)
    return found


def _check_kind(name: str | Path, kind: Kind, expect: Kind | None) -> None:
    if expect not in (kind, None):
        raise InputError(f"{name}: not a {expect} but a {kind}; {_advice(expect)}")


def kind_of(described: Mapping[str, Any]) -> Kind | None:
    """The kind of model that a config.json of ours describes; None for an official one."""
    for kind, keys in _MARKS.items():
        if keys <= set(described):
            return kind
    return None


def _local(name: str, path: Path) -> Located:
    if path.is_file():
        if path.suffix in SUFFIXES:
            return Located(name, kind_of_weights(path), None, path)
        if path.suffix == CODE:
            raise torchscript(path)
        raise InputError(f"{name}: a file that holds no weights; {_EXPECTED}")
    for folder in (path / "model", path):
        if (folder / CONFIG).is_file():
            described = read_json(folder / CONFIG)
            kind = kind_of(described)
            if kind is not None:
                if folder != path:
                    _check_run(name, path)
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
    if not any(file.suffix in (*SUFFIXES, CODE) for file in path.iterdir()):
        raise InputError(f"{name}: no {WEIGHTS} in it or in its 'model' folder; {_EXPECTED}")
    return Located(name, kind_of_weights(path), None, path)


def _check_run(name: str, run: Path) -> None:
    """InputError if the model of a run folder is older than the run, or not its own."""
    weights = run / "model" / WEIGHTS
    reason = unlike_its_run(run, sha256(weights)) if weights.is_file() else None
    if reason is not None:
        raise InputError(f"{name}: {reason}; name {run / 'model'} to take it nevertheless")


def _conversion(official: str | Path) -> tuple[Path, str | None]:
    """(folder of the conversion of official weights, hash of the files it is made of).

    A folder of that name which other files were converted into is left alone: the hash then stands
    behind the name. Released names have no hash; their files are the release's own.
    """
    path = Path(official)
    if not path.exists():
        return CONVERTED / str(official), None
    source, folder = _files_sha256(path), CONVERTED / path.resolve().stem
    record = folder / _SOURCE
    if (folder / WEIGHTS).is_file() and not (
        record.is_file() and record.read_text("utf-8").strip() == source
    ):
        folder = folder.with_name(f"{folder.name}-{source[:12]}")
    return folder, source


def _files_sha256(path: Path) -> str:
    """Hash of official weights and the configs beside them, whatever their folder is called."""
    if path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.suffix in _READ and f.is_file()]
    else:
        owners = [own for own in FAMILIES.values() if own.companion is not None]
        beside = [path.parent / name for name in CONFIGS]
        beside += [companion_of(own, path) for own in owners]
        files = [path, *(file for file in beside if file.is_file() and file != path)]
    lines = [f"{f.name} {sha256(f)}" for f in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _unknown(name: str) -> str:
    """The error of a name without a slash that is no release and no path."""
    here = sorted(p.name for p in Path().iterdir() if not p.name.startswith("."))
    like = close(name, here, cutoff=0.6)
    hint = f" (is it ./{like}?)" if like else ""
    known = nearest(name, [*EMBEDDED, *releases()])
    return (
        f"unknown release '{name}'; {known}; nor is there a file or folder of that name{hint}: "
        f"{_EXPECTED}"
    )


def _advice(expect: Kind) -> str:
    if expect == "generator":
        return "expected a run of task.kind=generator, or a released one such as rar-b"
    return "name the tokenizer whose tokens it learned"
