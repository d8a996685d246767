"""Weights on disk: searching, reading, and the errors where they are missing or do not fit.

Files are read by `vistok.storage.foreign`, which runs no code of theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vistok.config.errors import UserError
from vistok.storage.foreign import read_file
from vistok.storage.weights import WeightsError, all_finite, misfit

FOLDER = "VISTOK_WEIGHTS"  # environment variable: a folder of weight files


class MissingWeights(UserError, FileNotFoundError):
    """Weights that are not on this machine; the message says in one line how to get them."""


class BadWeights(UserError, ValueError):
    """A weight file that cannot be used for this network; the message is one line."""


@dataclass(frozen=True)
class Source:
    """Origin of the weights of a foreign network."""

    network: str  # the name it has here
    file: str  # its file name
    project: str  # who publishes it
    url: str  # where; a name that ends in -<hex>.pth is checked against that hash
    fetched: bool = True  # False: `url` is a page for people, nothing is ever downloaded

    def find(self, weights: str | Path | None = None) -> Path:
        """The file: `weights` (a file or its folder), else $VISTOK_WEIGHTS, else torch's own cache
        of downloads, which is filled from `url` if it lacks the file (and `fetched` allows it).

        Raises MissingWeights; an explicit `weights` is never replaced by something else.
        """
        if weights is not None:
            path = Path(weights)
            path = path / self.file if path.is_dir() else path
            if not path.is_file():
                raise MissingWeights(f"{self.network}: no weights at {path}; {self._advice()}")
            return path
        folder = os.environ.get(FOLDER)
        if folder and (Path(folder) / self.file).is_file():
            return Path(folder) / self.file
        return self._download()

    def _download(self) -> Path:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        if cache.is_file():
            return cache
        if not self.fetched:
            raise MissingWeights(f"{self.network}: no weights here; {self._advice()}")
        mark = re.search(r"-([0-9a-f]{8,})\.pth$", self.file)
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            digest = None if mark is None else mark[1]
            torch.hub.download_url_to_file(self.url, str(cache), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError) as error:  # no network, no space; another hash
            reason = " ".join(str(error).split())
            raise MissingWeights(
                f"{self.network}: cannot download the weights ({reason}); {self._advice()}"
            ) from None
        return cache

    def _advice(self) -> str:
        return (
            f"fetch {self.file} of {self.project} from {self.url} and put it into the folder "
            f"that the environment variable {FOLDER} names, or pass its path (--weights)"
        )


def hollow() -> bool:
    """True while networks are built without storage, under `torch.device("meta")`.

    Only their shapes are needed then, so weights are neither searched for nor read.
    """
    return torch.get_default_device().type == "meta"


def read_state(path: str | Path, network: str) -> dict[str, Tensor]:
    """A flat state dict, on the CPU, from .safetensors or a torch file.

    Raises BadWeights if the file is broken, holds anything but tensors by name, or would have to
    run code to be read.
    """
    path = Path(path)
    try:
        state = read_file(path)
    except WeightsError as error:
        raise _unusable(network, path, str(error).removeprefix(f"{path}: ")) from None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise _unusable(network, path, "it does not map names to tensors")
    return dict(state)


def _unusable(network: str, path: Path, why: str) -> BadWeights:
    return BadWeights(
        f"{network}: {path} is not a usable weight file ({why}); expected a state dict in "
        ".safetensors or .pth"
    )


def fitted(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], network: str
) -> dict[str, Tensor]:
    """The tensors of a weight file in the types of `expected`, the network's own state.

    Raises BadWeights for other keys or shapes, for types that do not fit (see `misfit`) and for
    values that are not finite.
    """
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        kind, key = ("lacks", missing[0]) if missing else ("has the unknown key", unknown[0])
        raise BadWeights(
            f"{network}: the weight file {kind} '{key}' ({len(missing)} keys missing, "
            f"{len(unknown)} unknown); expected the {len(expected)} keys of this network"
        )
    for key, tensor in expected.items():
        if tensor.shape != state[key].shape:
            raise BadWeights(
                f"{network}: '{key}' has shape {tuple(state[key].shape)} in the weight file; "
                f"expected {tuple(tensor.shape)}"
            )
    check_types(expected, state, network)
    return {key: state[key].to(tensor.dtype) for key, tensor in expected.items()}


def check_types(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], network: str) -> None:
    """Raise BadWeights for a tensor of `state` whose type or values cannot stand for the one of
    that name in `expected`; other names are not looked at."""
    for key in expected.keys() & state.keys():
        tensor = state[key]
        wrong = misfit(tensor, expected[key].dtype)
        if wrong is None and not (tensor.is_meta or all_finite(tensor)):
            wrong = "has values that are not finite"
        if wrong is not None:
            raise BadWeights(f"{network}: '{key}' of the weight file {wrong}")


def check_loaded(module: nn.Module, files: Iterable[Path], network: str) -> None:
    """Raise BadWeights if a library, which casts what it reads, made numbers of something else.

    A tensor of a file that is not of floats may not bear the last name (`weight`) of one that the
    module keeps in floats; the module's values must be finite.
    """
    own = module.state_dict()
    floats = {key.rpartition(".")[2] for key, one in own.items() if one.is_floating_point()}
    for file in files:
        for key, kind in _types(file, network).items():
            if not kind.startswith(("F", "BF")) and key.rpartition(".")[2] in floats:
                raise BadWeights(f"{network}: '{key}' of {file} has type {kind}; expected floats")
    for key, tensor in own.items():
        if not all_finite(tensor):
            raise BadWeights(f"{network}: '{key}' of the weights has values that are not finite")


def _types(file: Path, network: str) -> dict[str, str]:
    """The type of each tensor of a file by its name in safetensors: F32, BF16, I64, BOOL."""
    if file.suffix != ".safetensors":
        names = {torch.bool: "BOOL", torch.complex64: "C64", torch.complex128: "C128"}
        found = read_state(file, network)
        return {
            key: "F" if one.is_floating_point() else names.get(one.dtype, "I")
            for key, one in found.items()
        }
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_slice(key).get_dtype() for key in opened.keys()}
