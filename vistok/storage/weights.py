"""Weights as safetensors: written whole, read strictly. Nothing here executes code from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from vistok.config.errors import UserError
from vistok.core.regular_files import open_regular
from vistok.storage.files import UnwrittenError, replacing, unwritten

T = TypeVar("T")


class WeightsError(UserError, ValueError):
    """A weights file that cannot be used; the message names file and key."""


def write_safetensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors (any layout, any device; tied ones are written once each), whole or not at all.

    Raises UnwrittenError if the disk refuses (the library has a type of its own for that).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _plain(tensors)
    try:
        with replacing(path) as draft:
            save_file(plain, str(draft))
    except SafetensorError as error:
        raise UnwrittenError(f"{path}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise unwritten(path, error) from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file; WeightsError names the file for anything that is not one."""
    from safetensors.torch import load_file

    return _opened(path, load_file)


def safetensors_keys(path: str | Path) -> list[str]:
    """Names of the tensors of a file, whose numbers are not read; errors as `read_safetensors`."""
    from safetensors import safe_open

    def keys(name: str) -> list[str]:
        with safe_open(name, "pt") as file:
            return list(file.keys())

    return _opened(path, keys)


def _opened(path: str | Path, read: Callable[[str], T]) -> T:
    from safetensors import SafetensorError

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; expected a .safetensors file")
    try:
        return read(str(path))
    except (SafetensorError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: not a readable safetensors file ({reason})") from None


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Load tensors into a module; missing, unexpected, misshapen or non-finite ones are errors, and
    so are those of another type (see `misfit`)."""
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    if missing or unexpected:
        parts = [f"missing {_some(missing)}"] if missing else []
        parts += [f"unexpected {_some(unexpected)}"] if unexpected else []
        raise WeightsError(f"{source}: {'; '.join(parts)}; these are weights of another config")
    for key, tensor in tensors.items():
        if tensor.shape != own[key].shape:
            raise WeightsError(
                f"{source}: {key} has shape {tuple(tensor.shape)}; expected {tuple(own[key].shape)}"
            )
    for key, tensor in tensors.items():
        if (wrong := misfit(tensor, own[key].dtype)) is not None:
            raise WeightsError(f"{source}: {key} {wrong}")
    broken = [k for k, t in tensors.items() if t.is_floating_point() and not finite(t).all()]
    if broken:
        raise WeightsError(f"{source}: values that are not finite in {_some(sorted(broken))}")
    module.load_state_dict(dict(tensors))


def misfit(tensor: Tensor, wanted: torch.dtype) -> str | None:
    """Reason why a tensor cannot stand for one of the type `wanted`; None if it can.

    Floats stand for floats of any precision and integers for integers, if every value fits the
    wanted type; nothing else changes its kind. Values that are not finite are not looked at here.
    """
    kind, expected = _kind(tensor.dtype), _kind(wanted)
    if kind != expected:
        return f"has type {_name(tensor.dtype)} ({kind}); expected {_name(wanted)} ({expected})"
    if tensor.dtype == wanted or not tensor.numel():
        return None
    fits = kind == "boolean"
    if kind == "integer":
        wide, bounds = tensor.to(torch.int64), torch.iinfo(wanted)
        low, high = int(wide.min()), int(wide.max())
        wrapped = tensor.dtype == torch.uint64 and low < 0
        fits = bounds.min <= low and high <= bounds.max and not wrapped
    elif kind == "floating point":
        fits = torch.equal(finite(tensor.to(wanted)), finite(tensor))
    if not fits:
        return f"has values of {_name(tensor.dtype)} that do not fit {_name(wanted)}"
    return None


def finite(tensor: Tensor) -> Tensor:
    """Mask of the values of a tensor that are finite; types of one byte are read in fp32."""
    small = tensor.is_floating_point() and tensor.element_size() < 2
    return (tensor.float() if small else tensor).isfinite()


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "floating point"
    if dtype.is_complex:
        return "complex"
    return "boolean" if dtype == torch.bool else "integer"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes."""
    with open_regular(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of the file that `write_safetensors` makes of tensors, which is not written."""
    from safetensors.torch import save

    return hashlib.sha256(save(_plain(tensors))).hexdigest()


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and numbers: the same whatever file they came from."""
    seen = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seen.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
