"""Other people's weight files: state dicts from .safetensors and from torch's pickles.

A pickle is read by torch's restricted loader (`weights_only=True`). Besides tensors it may hold
the few types below, whose names are mapped onto stand-ins of ours that keep data and run nothing.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.config.bounded import read_json
from vistok.core.regular_files import check_regular
from vistok.storage.literals import header_settings
from vistok.storage.weights import WeightsError, read_safetensors, safetensors_keys

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
CODE = ".jit"  # suffix of TorchScript archives
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_FILES = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
# Where trainers keep the weights inside a checkpoint; averaged ones are what papers measure.
_AVERAGED = ("ema", "model_ema", "ema_model", "ema_state_dict", "shadow_params_named")
_PLAIN = ("state_dict", "model", "model_state_dict", "module", "net", "tokenizer", "weights", "sd")
_PREFIXES = ("module.", "_orig_mod.")
_SETTINGS = "args"  # where a trainer keeps its argparse.Namespace beside the weights


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file or folder, and what the file says about them."""

    state: dict[str, Tensor]
    """Flat state dict, on the CPU."""
    inside: str | None = None
    """Place of the weights in the file ("ema", "model"), where it holds more than one state dict
    or other things beside it; None: the file is the state dict."""
    settings: Mapping[str, Any] | None = None
    """Options of the trainer, where the file holds its `args`, or settings in the header of a
    safetensors file: plain values alone."""


class Inert:
    """Stands in for a class that a checkpoint names: its fields are kept, nothing is run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


# argparse.Namespace and OmegaConf's nodes: configs that trainers put beside the weights.
_STAND_INS = (
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "typing.Any",
    "collections.defaultdict",
    "pathlib.PosixPath",
)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file or folder; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A flat state dict on the CPU, of a file or of a folder that holds one (sharded or not).

    Nested checkpoints are opened (averaged weights before plain ones) and the prefixes of wrappers
    are cut off. Raises WeightsError, one line with the file's name, for anything else.
    """
    path = _weights_of(Path(path))
    if path.name in _INDEX:
        return Checkpoint(_read_shards(path))
    data = read_file(path)
    tensors, inside = _tensors(data, path)
    settings = header_settings(path) if path.suffix == ".safetensors" else _settings(data)
    return Checkpoint(_bare(tensors), inside, settings)


def read_keys(path: str | Path) -> frozenset[str]:
    """Names of the tensors that `read_checkpoint` gives, whose numbers stay in the file if its
    format allows that; errors are the same."""
    path = _weights_of(Path(path))
    if path.name in _INDEX:
        return frozenset(_bare(_weight_map(path)))
    if path.suffix == ".safetensors":
        return frozenset(_bare(dict.fromkeys(safetensors_keys(path))))
    return frozenset(_bare(_tensors(read_file(path, mapped=True), path)[0]))


def read_file(path: str | Path, mapped: bool = False) -> Any:
    """Everything that one file holds: tensors by name from .safetensors, tensors and plain data
    from any other (a file that `torch.save` wrote).

    Args:
        mapped: leave the numbers of a file of `torch.save` on the disk until they are looked at.

    Raises WeightsError, one line with the file's name, for a file that is broken or would have to
    run code to be read (TorchScript, pickles of other classes).
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    check_regular(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if _is_torchscript(path):
        raise torchscript(path)
    return _unpickle(path, mapped and zipfile.is_zipfile(path))


def torchscript(path: Path) -> WeightsError:
    """The error of a file that holds code."""
    return WeightsError(
        f"{path}: it is TorchScript, which is code, and no code of a file is ever run; ask for "
        "a .safetensors file"
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("/code/" in name or name.endswith("/constants.pkl") for name in names)


def _weights_of(path: Path) -> Path:
    """The weights file behind a path: itself, or the file or index of shards of a folder."""
    if not path.is_dir():
        if path.suffix == CODE:
            raise torchscript(path)
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"{path}: expected a weights file ({', '.join(SUFFIXES)}) or a folder"
            )
        return path
    for name in (*_INDEX, *_FILES):
        if (path / name).is_file():
            return path / name
    found = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(found) == 1:
        return path / found[0]
    if not found and (code := sorted(path.glob(f"*{CODE}"))):
        raise torchscript(code[0])
    what = f"several weights files ({', '.join(found[:4])})" if found else "no weights file"
    raise WeightsError(f"{path}: {what}; name the file, or expected one of {', '.join(_FILES)}")


def _weight_map(index: Path) -> dict[str, str]:
    """{tensor: file} of an index of shards."""
    try:
        return {str(key): str(name) for key, name in read_json(index)["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).removeprefix(f"{index}: ")
        raise WeightsError(f"{index}: not an index of weight shards ({reason})") from None


def _read_shards(index: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name in sorted(set(_weight_map(index).values())):
        if Path(name).name != name:
            raise WeightsError(f"{index}: shard '{name}' lies outside its folder; refused")
        if Path(name).suffix not in SUFFIXES or not (index.parent / name).is_file():
            raise WeightsError(
                f"{index}: shard '{name}' is not there; expected a weights file beside the index"
            )
        state.update(read_state(index.parent / name))
    return state


def _unpickle(path: Path, mapped: bool) -> Any:
    allowed = [(Inert, name) for name in _STAND_INS]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        raise WeightsError(
            f"{path}: holds more than tensors and plain data, and reading that could run code "
            f"({reason}); refused: ask for a .safetensors file"
        ) from None
    except Exception as error:  # every broken archive fails in a way of its own
        raise WeightsError(f"{path}: not a readable weights file ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(error).__name__])[0][:160]


def _tensors(
    data: Any, path: Path, inside: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], str | None]:
    """The state dict inside whatever a trainer saved, and the keys that lead to it."""
    if isinstance(data, Mapping) and data and len(inside) < 4:
        tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)}
        if tensors and all(isinstance(key, str) for key in tensors):
            return tensors, ".".join(inside) or None
        for key in (*_AVERAGED, *_PLAIN):
            if isinstance(data.get(key), Mapping):
                return _tensors(data[key], path, (*inside, key))
    keys = ", ".join(map(str, list(data)[:6])) if isinstance(data, Mapping) else type(data).__name__
    raise WeightsError(
        f"{path}: no state dict in it (found {keys}); expected tensors by name, or a checkpoint "
        f"with one of {', '.join((*_AVERAGED[:2], *_PLAIN[:2]))}"
    )


def _settings(data: Any) -> dict[str, Any] | None:
    """The plain values of a trainer's `args`; None where a file has none."""
    args = data.get(_SETTINGS) if isinstance(data, Mapping) else None
    args = getattr(args, "state", None) if isinstance(args, Inert) else args
    if not isinstance(args, Mapping):
        return None
    return {key: value for key, value in args.items() if isinstance(key, str) and _is_plain(value)}


def _is_plain(value: Any, depth: int = 0) -> bool:
    """True for what JSON holds: finite numbers, text, truth values, lists and tables of them."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and _is_plain([*value.values()], depth)
    if isinstance(value, list | tuple):
        return depth < 4 and all(_is_plain(one, depth + 1) for one in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys without the prefixes that wrappers put before all of them, in any order."""
    state = dict(state)
    while state:
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
                break
        else:
            return state
    return state
