"""Search for official weights: a released name, a local folder, a file. The only network code of
this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vistok.config import ConfigError, UserError
from vistok.config.bounded import read_json
from vistok.config.yaml_files import read_plain_yaml
from vistok.pretrained.base import Family, Kind, Release
from vistok.pretrained.table import FAMILIES, family_of, release_of, released_name, releases
from vistok.storage.foreign import SUFFIXES, read_checkpoint, read_keys
from vistok.storage.hub import local_path, nowhere
from vistok.storage.weights import WeightsError, sha256

CONFIGS = ("config.json", "config.yaml", "config.yml")


@dataclass(frozen=True)
class Found:
    """Official weights, read and recognized."""

    family: Family
    state: dict[str, Tensor]
    config: Mapping[str, Any]
    source: str
    release: str | None = None
    license: str | None = None
    inside: str | None = None
    """Place of the weights in a file that holds others too ("ema")."""


def find(
    name: str | Path,
    family: str | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    local_files_only: bool = False,
) -> Found:
    """The weights and config behind a name or path; one-line errors say what is missing."""
    path = local_path(name)
    if path.exists():
        return _local(path, family, config)
    if released_name(str(name)) is None and (path.suffix in SUFFIXES or "/" in str(name)):
        few = ", ".join(list(releases())[:3])
        raise ConfigError(nowhere(name, f"expected official weights, or a name of {few}, ..."))
    own, release = release_of(str(name))
    path = _download(release, local_files_only)
    if own.companion is not None and path.is_file():
        _download(release_of(own.companion)[1], local_files_only)  # into the same folder
    if release.sha256 is not None and path.is_file():
        found = sha256(path)
        if found != release.sha256:
            raise WeightsError(
                f"{path}: its sha256 is {found[:16]}..., that of {release.name} "
                f"{release.sha256[:16]}...; download it again"
            )
    chosen = config if config is not None else release.config
    found = _local(path, own.name, chosen)
    return replace(found, release=release.name, license=release.license)


def kind_of_weights(path: Path) -> Kind | None:
    """Kind of model that official weights are, by the names of their tensors. None for weights that
    nobody knows or that cannot be read: `find` says what is wrong with them."""
    try:
        keys, config = read_keys(path), _config(path if path.is_dir() else path.parent, None)
    except UserError:
        return None
    known = (own.makes for own in FAMILIES.values() if own.recognizes(config or {}, keys))
    return next(known, None)


def _local(path: Path, family: str | None, config: Mapping[str, Any] | str | Path | None) -> Found:
    found = _recognized(path, family, config)
    if found.family.companion is None:
        return found
    beside = companion_of(found.family, path)
    if not beside.is_file():
        raise ConfigError(
            f"{path}: a generator of {found.family.name} reads the codes of its tokenizer "
            f"{found.family.companion}; expected its file {beside.name} beside it"
        )
    state = found.family.completed(found.state, read_checkpoint(beside).state)
    return replace(found, state=dict(state))


def companion_of(family: Family, path: Path) -> Path:
    """The place of the tokenizer's weights that a generator's at `path` are read with."""
    folder = path if path.is_dir() else path.parent
    return folder / release_of(family.companion)[1].file


def _recognized(
    path: Path, family: str | None, config: Mapping[str, Any] | str | Path | None
) -> Found:
    checkpoint = read_checkpoint(path)
    state, inside = checkpoint.state, checkpoint.inside
    folder = path if path.is_dir() else path.parent
    if not isinstance(config, Mapping):
        config = _config(folder, config)
    chosen = FAMILIES.values() if family is None else (family_of(family),)
    for own in chosen:
        settings = checkpoint.settings  # some trainers keep the config beside the weights
        if config is None and settings is not None and own.recognizes(settings, state):
            return Found(own, state, settings, str(path), inside=inside)
        if config is None:  # some releases are bare weights whose constants we know
            known = _constants(own, state, path)
            if known is not None:
                return Found(own, state, known, str(path), inside=inside)
        elif family is not None or own.recognizes(config, state):
            return Found(own, state, config, str(path), inside=inside)
    if config is None:
        raise ConfigError(
            f"{folder / CONFIGS[0]}: no such config; these weights came with no {CONFIGS[0]}; "
            "expected a folder made by save_pretrained, or official weights with their official "
            "config beside them (or config=PATH)"
        )
    raise ConfigError(
        f"{path}: no family recognizes its config and keys; say which it is: family= one of "
        f"{', '.join(FAMILIES)}"
    )


def _constants(family: Family, state: dict[str, Tensor], path: Path) -> Mapping[str, Any] | None:
    """`Family.constants`, whose error names the file. The weights are somebody else's: a tensor
    without the axes that sizes are read from is named as well."""
    watched = _Watched(state)
    try:
        return family.constants(watched)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError):
        key = next((key for key in watched.seen if not state[key].numel()), None)
        key = key or next((key for key in watched.seen if not state[key].ndim), None)
        said = f"{key} has shape {tuple(state[key].shape)}" if key else "tensors have other shapes"
        raise WeightsError(
            f"{path}: {said}; {family.name} reads its sizes there: expected the released weights "
            "as they came"
        ) from None


class _Watched(dict):
    """A state dict that remembers which of its tensors were looked at."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.seen: list[str] = []

    def __getitem__(self, key: str) -> Tensor:
        found = super().__getitem__(key)
        self.seen.append(key)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default


def _config(folder: Path, given: str | Path | None) -> Mapping[str, Any] | None:
    """An official config: plain JSON or YAML, never resolved (it came with the weights). None: no
    file was named and there is none."""
    tried = [Path(given)] if given is not None else [folder / name for name in CONFIGS]
    for path in tried:
        if not path.is_file():
            continue
        try:
            data = read_json(path) if path.suffix == ".json" else read_plain_yaml(path)
        except UserError as error:
            reason = str(error).removeprefix(f"{path}: ")[:160]
            raise ConfigError(f"{path}: not readable as JSON or YAML ({reason})") from None
        if not isinstance(data, Mapping):
            raise ConfigError(f"{path}: expected a mapping, the official config")
        return data
    if given is not None:
        raise ConfigError(f"{given}: no such config; expected the official config.json")
    return None


def _download(release: Release, local_files_only: bool) -> Path:
    """Weights and config of a hub repository, through the hub's own cache."""
    if release.page is not None:
        raise ConfigError(
            f"{release.name}: its weights lie where only people can fetch them; download "
            f"{release.file} from {release.page} and name the file instead"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [release.file, *CONFIGS]
    try:
        folder = Path(
            snapshot_download(
                release.hub, allow_patterns=patterns, local_files_only=local_files_only
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"{release.name}: the hub does not give {release.hub} ({reason}); download "
            f"{release.file} and config.json by hand and name the folder instead"
        ) from None
    return folder / release.file if (folder / release.file).is_file() else folder
