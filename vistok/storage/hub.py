"""Saved models: a folder of config.json + model.safetensors, local or on the hub.

A name is a path of this machine unless it begins with `hf:`: then it is an id of the hub, such as
`hf:owner/name`. A path that does not exist is never asked of the hub, or whoever owns the name that
a slip of the pen makes would supply the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin

from vistok.config import ConfigError, bounded
from vistok.config.names import close
from vistok.config.plugins import load_plugins, modules_of
from vistok.core.errors import InputError
from vistok.storage.files import write_text
from vistok.storage.weights import WeightsError, load_strict, read_safetensors, write_safetensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB = "hf:"  # what ids of the hub begin with
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)  # owner/name
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Saved(ModelHubMixin):
    """save_pretrained / from_pretrained / push_to_hub with our own strict reading.

    A subclass gives `describe() -> dict` (what config.json holds) and
    `from_description(data, source) -> module` (the module without its weights).
    """

    def describe(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_description(cls, data: dict[str, Any], source: str) -> Any:
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str | torch.device = "cpu",
        plugins: str | Sequence[str] = (),
    ) -> Any:
        """A saved model in evaluation mode, from a local folder or an id of the hub (`hf:`).

        Args:
            plugins: modules of your own parts that the model was made with; they are imported
                first, and never because a file names them.

        The mixin's own way in would read config.json first, with errors of its own, and hand its
        keys on as arguments.
        """
        load_plugins(plugins)
        hub = hub_id(name)
        if hub is None:
            folder = local_path(name)
            if not folder.is_dir():
                raise ConfigError(nowhere(name, "expected a folder made by save_pretrained"))
        else:
            folder = download(
                hub,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        module = cls.from_description(read_json(folder / CONFIG), str(folder / CONFIG))
        if not (folder / WEIGHTS).is_file() and _pickles(folder):
            raise WeightsError(f"{folder}: no {WEIGHTS} in it{_pickles(folder)}")
        load_strict(module, read_safetensors(folder / WEIGHTS), folder / WEIGHTS)
        return module.to(map_location).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        folder = Path(save_directory)
        own = modules_of(self.config)  # names for the reader of an error; nothing imports them
        described = self.describe() | ({"plugins": own} if own else {})
        write_text(folder / CONFIG, json.dumps(described, indent=2) + "\n")
        write_safetensors(self.state_dict(), folder / WEIGHTS)


def _pickles(folder: Path) -> str:
    """Why weights that do lie there do not count."""
    names = sorted(p.name for p in folder.glob("*") if p.suffix in _PICKLED)
    if not names:
        return ""
    return f", and {names[0]} is never read: a pickle can run code, convert it to safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """A saved model's config.json; ConfigError says what is wrong with it."""
    if not path.is_file():
        raise ConfigError(
            f"{path.parent}: no {path.name}; expected a folder made by save_pretrained, or a "
            "finished run's 'model' folder"
        )
    try:
        data = bounded.read_json(path)
    except InputError as error:
        raise ConfigError(f"{error}; save the model again") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object; save the model again")
    return data


def hub_id(name: str | Path) -> str | None:
    """`owner/name` of a name that begins with `hf:`; None for every other, which is local.

    ConfigError for an id that the hub cannot have.
    """
    text = str(name)
    if not text.startswith(HUB):
        return None
    own = text.removeprefix(HUB)
    if not _ID.fullmatch(own):
        raise ConfigError(f"{text}: not an id of the hub; expected {HUB}owner/name")
    return own


def local_path(name: str | Path) -> Path:
    """The path of a name, with the home folder in place of `~`, if there is such a user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)


def nowhere(name: str | Path, expected: str, folders: bool = False) -> str:
    """The error of a path that is no folder, with the nearest name beside one that does not exist.

    A name of the form owner/name may have been meant for the hub: the error says how to write that.

    Args:
        folders: True where only folders are looked for.
    """
    path = local_path(name)
    if path.exists():
        return f"{path}: a file; {expected}"
    up = path.parent
    while not up.is_dir():
        up = up.parent
    missing = path.parts[len(up.parts)]
    there = sorted(
        p.name for p in up.iterdir() if not p.name.startswith(".") and (p.is_dir() or not folders)
    )
    like = close(missing, there)
    hint = f"did you mean {up / like}? " if like else ""
    if _ID.fullmatch(str(name)):
        expected += f"; a model of the hub is written {HUB}{name}"
    kind = "folder" if folders else "file or folder"
    return f"{path}: no such {kind} (there is no '{missing}' in {up}); {hint}{expected}"


def download(name: str, files: Sequence[str] = (CONFIG, WEIGHTS), **options: Any) -> Path:
    """Folder of a model of the hub, in the hub's own cache; ConfigError if the hub has none.

    Args:
        name: owner/name.
        files: names and patterns of what is fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(files), **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{HUB}{name}: the hub does not give it ({reason}); expected a model of the hub, or "
            "the folder of a download"
        ) from None
