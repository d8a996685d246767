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
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin

from vistok.config import ConfigError, bounded
from vistok.config.names import close
from vistok.config.plugins import modules_of
from vistok.core.errors import InputError
from vistok.storage.files import write_text
from vistok.storage.hollow import filled
from vistok.storage.weights import WeightsError, load_file, write_safetensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB = "hf:"  # what ids of the hub begin with
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)  # owner/name
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Saved(ModelHubMixin):
    """save_pretrained / from_pretrained / push_to_hub with our own strict reading.

    A subclass gives `describe() -> dict` (what config.json holds) and
    `from_description(data, source) -> module` (the module without its weights).

    Attributes:
        makes: kind of model, "tokenizer" or "generator".
    """

    makes: Literal["tokenizer", "generator"]

    def stays_fp32(self) -> set[str]:
        """Names of the parameters and buffers that stay in fp32 whatever `dtype` asks for."""
        return set()

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
        plugins: str | Sequence[str] = (),
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str | torch.device | None = None,
    ) -> Any:
        """The model behind any name that `vistok.pretrained.open` takes, in evaluation mode.

        Args:
            name: a run, a folder made by `save_pretrained`, official weights, a released name
                ("titok-l32"), or an id of the hub ("hf:owner/name").
            plugins: module, or modules, of your own parts that the model was made with; they are
                imported first, and never because a file names them.
            dtype: type of the weights, torch.bfloat16 or "bf16" for one; quantizers stay in fp32.
                None = fp32.
            device: where the weights go; None = "cpu". `map_location` is its earlier name.
            revision, cache_dir, force_download, local_files_only, token: of the hub.

        Raises a UserError of one line: nothing of that name, weights that are broken or of another
        config, or a model of another kind.
        """
        import vistok  # loads `pretrained` on first use, of which storage itself knows nothing

        return vistok.pretrained.open(
            name,
            expect=cls.makes,
            plugins=plugins,
            dtype=dtype,
            device=map_location if device is None else device,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
    ) -> Any:
        """The model of a folder that `save_pretrained` made; `from_pretrained` takes any name."""
        described, source = read_json(folder / CONFIG), str(folder / CONFIG)
        weights, chosen = folder / WEIGHTS, None if dtype is None else float_type(dtype)
        if not weights.is_file() and _pickles(folder):
            raise WeightsError(f"{folder}: no {WEIGHTS} in it{_pickles(folder)}")
        device = None if device is None else usable(device)
        module, _ = filled(
            lambda: cls.from_description(described, source),
            lambda module: load_file(module, weights, chosen, module.stays_fp32(), device),
        )
        return placed(module, chosen, device).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        folder = Path(save_directory)
        own = modules_of(self.config)  # names for the reader of an error; nothing imports them
        described = self.describe() | ({"plugins": own} if own else {})
        write_text(folder / CONFIG, json.dumps(described, indent=2) + "\n")
        write_safetensors(self.state_dict(), folder / WEIGHTS)


def placed(
    model: Any, dtype: torch.dtype | str | None = None, device: str | torch.device | None = None
) -> Any:
    """The model itself, its floats in another type but for those that stay in fp32.

    InputError for a type that no network computes in, and for a device that is not there.
    """
    if dtype is not None:
        chosen, kept = float_type(dtype), model.stays_fp32()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point() and name not in kept:
                tensor.data = tensor.data.to(chosen)
    return model if device is None else model.to(usable(device))


def usable(device: str | torch.device) -> torch.device:
    """A device that tensors can be put on; InputError for one that is not there."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            f"device={device}: not usable here ({reason}); expected cpu, or cuda, cuda:0 of a "
            "machine with a GPU"
        ) from None
    return found


def float_type(dtype: torch.dtype | str) -> torch.dtype:
    """The type of floats behind its name (`bf16`, `bfloat16`, torch.bfloat16); InputError for
    others."""
    chosen = _TYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise InputError(f"dtype={dtype}: expected fp32, bf16 or fp16")
    return chosen


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
