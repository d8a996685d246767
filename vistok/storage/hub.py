"""Saved models: a folder of config.json + model.safetensors, local or on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin

from vistok.config import ConfigError, bounded
from vistok.core.errors import InputError
from vistok.storage.files import write_text
from vistok.storage.weights import WeightsError, load_strict, read_safetensors, write_safetensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
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
    ) -> Any:
        """A saved model in evaluation mode, from a local folder or a hub id.

        The mixin's own way in would read config.json first, with errors of its own, and hand its
        keys on as arguments.
        """
        folder = Path(name)
        if not folder.is_dir():
            folder = download(
                str(name),
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
        write_text(folder / CONFIG, json.dumps(self.describe(), indent=2) + "\n")
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


def download(name: str, **options: Any) -> Path:
    """Folder of a model of the hub, in the hub's own cache; ConfigError if the hub has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{name}: neither a local folder nor a model on the hub ({reason}); expected a "
            "folder made by save_pretrained or a hub id"
        ) from None
