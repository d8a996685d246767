"""Weights as safetensors: written whole, read strictly. Nothing here executes code from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from vistok.config.errors import UserError
from vistok.core.regular_files import open_regular
from vistok.storage.files import UnwrittenError, replacing, unwritten
from vistok.storage.hollow import put

T = TypeVar("T")


class WeightsError(UserError, ValueError):
    """A weights file that cannot be used; the message names file and key."""


def write_safetensors(
    tensors: Mapping[str, Tensor], path: str | Path, header: dict[str, str] | None = None
) -> None:
    """Write tensors (any layout, any device; tied ones are written once each), whole or not at all.

    Args:
        header: text for the file's header.
    Raises UnwrittenError if the disk refuses (the library has a type of its own for that).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _plain(tensors)
    try:
        with replacing(path) as draft:
            mode = draft.stat().st_mode
            save_file(plain, str(draft), header)
            draft.chmod(mode)  # the library's own file is for its owner alone
    except SafetensorError as error:
        raise UnwrittenError(f"{path}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise unwritten(path, error) from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with all of a storage to itself; what has one is not copied."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        plain[name] = tensor
    return plain


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
    _check(own, tensors, source)
    module.load_state_dict(dict(tensors))


def load_file(
    module: nn.Module,
    path: str | Path,
    dtype: torch.dtype | None = None,
    keep: Collection[str] = (),
    device: torch.device | str | None = None,
) -> None:
    """Put the tensors of a file in the place of a module's own, which need no storage.

    Each is read into aligned memory of its own: nothing stays mapped, so that the file may be
    replaced or edited afterwards, and products come out as those of a module that was trained.

    Args:
        dtype: type of the floats but for those whose names `keep` has; None = the module's own.
        device: where they go; None = the CPU.
    Errors as of `load_strict`.
    """
    own, tensors = module.state_dict(), read_safetensors(path)
    _check(own, tensors, path)
    for name, mine in own.items():
        cast = dtype is not None and mine.is_floating_point() and name not in keep
        wanted = dtype if cast else mine.dtype
        tensors[name] = tensors[name].to(device, wanted, copy=True)
        if cast and not all_finite(tensors[name]):
            raise WeightsError(f"{path}: {name} has values that do not fit {_name(wanted)}")
    put(module, tensors)


def _check(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """WeightsError unless tensors of a file can stand for a module's own."""
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
    broken = [key for key, tensor in tensors.items() if not all_finite(tensor)]
    if broken:
        raise WeightsError(f"{source}: values that are not finite in {_some(sorted(broken))}")


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


def all_finite(tensor: Tensor) -> bool:
    """True if a tensor has no value that is not finite; fifteen times as fast as its mask."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = (tensor.float() if tensor.element_size() < 2 else tensor).aminmax()  # pass NaN on
    return bool(low.isfinite() and high.isfinite())


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
