"""The token cache on disk: `meta.json` and memory-mapped arrays in one folder.

tokens.npy     [count, L, F] in the smallest integer type of the spec ([count, L, dim] float32 if
               the tokens are continuous). Row = sample * crops + crop, when each sample was
               tokenized from several crops.
labels.npy     [count] int64, -1 = unlabeled.
latents.npy    [count, N, D], optional: the encoder's output before quantization.
space.npy      [count, C, *sides], optional: samples in the tokenizer's input space.
prefix.npy     like tokens.npy, optional: tokens of the first frames of each clip, the last of them
               held to its end. Their number is `first_frames` of the source.
text.npy       [samples, (K,) M, C], optional: features of each sample's text; with them
text_mask.npy  [samples, M] bool: which positions are text, and
pooled.npy     [samples, C], optional: one vector for each text.
score.npy      [samples], optional: a number for each sample, such as its aesthetics.
empty_NAME.npy [1, ...] for NAME of text, text_mask, pooled: those of the empty text, if the cache
               was made with them.
names.txt      a line for each sample, optional: the path of its file below the data set's folder,
               by which captions and other tables can be joined.
meta.json      spec, count, written, crops, classes, arrays (type and shape of one entry of each
               optional array), source (a data record), tokenizer (name, sha256 of its weights,
               codes_sha256 of those that make the tokens),
               files (size and sha256 of each array, once all rows are written), names (the same of
               names.txt, if it is there) and a seal over itself. `written` is raised only after
               the rows are on disk (`token_cache_writer`).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.regular_files import open_regular
from vistok.core.text import printable
from vistok.data.base import UNLABELED, DataError, text_of
from vistok.storage.lineage import read_record as read_made_by
from vistok.storage.sealed import SEAL, SealError, check_files, check_seal, read_record
from vistok.tokens import Tokens, TokenSpec

VERSION = 2
META, NAMES = "meta.json", "names.txt"
OF_TEXT = ("text", "text_mask", "pooled")
PER_SAMPLE = (*OF_TEXT, "score")
EMPTY = tuple(f"empty_{name}" for name in OF_TEXT)
OPTIONAL = ("latents", *PER_SAMPLE, "space", "prefix", *EMPTY)
FILES = tuple(f"{name}.npy" for name in ("tokens", "labels", *OPTIONAL))


@dataclass(frozen=True)
class ArraySpec:
    """An optional array of a cache: the shape of one entry, and its type."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "float16", "bool", "uint8", "int16", "int32", "int64"] = "float32"

    @classmethod
    def of(cls, batch: Tensor, dtype: Literal["float32", "float16"] = "float32") -> ArraySpec:
        """The spec of arrays whose entries are rows of `batch` [B, ...]; masks stay bool, and
        integers as they are."""
        kept = dtype if batch.is_floating_point() else str(batch.dtype).removeprefix("torch.")
        return cls(tuple(batch.shape[1:]), kept)


class TokenCache:
    """A finished cache, read through memory maps; DataError if it is unfinished or damaged.

    Opening it reads every byte once, to compare the files with their digests.
    """

    def __init__(self, path: str | os.PathLike[str], verify: bool = True) -> None:
        """
        Args:
            verify: False leaves the digests alone, for files that this process has just written.
        """
        self.path = Path(path).expanduser()
        self.meta = read_meta(self.path)
        self.spec = _spec(self.path, self.meta)
        self.count, self.crops = self.meta["count"], self.meta["crops"]
        self.classes = tuple(self.meta["classes"])
        self.arrays = array_specs(self.path, self.meta["arrays"])
        self.center = _center(self.meta)
        if self.meta["written"] != self.count:
            raise DataError(
                f"token cache {self.path}: unfinished, {self.meta['written']} of {self.count} rows "
                f"written; run the command that began it again, it resumes there"
            )
        self._maps: dict[str, np.ndarray] | None = self._map()
        if verify:
            check_digests(self.path, self.meta)
        check_labels(self.path, self.labels, self.classes)

    def __len__(self) -> int:
        """Samples; each has `crops` rows."""
        return self.count // self.crops

    @property
    def labels(self) -> np.ndarray:
        """Labels of all rows [count] int64, a read-only memory map; -1 = unlabeled."""
        return self._array("labels")

    @functools.cached_property
    def names(self) -> tuple[str, ...] | None:
        """Path of each sample's file below the data set's folder; None if the cache has none.

        They are read when they are first asked for: training does not hold them in memory.
        """
        return read_names(self.path, self.meta, len(self))

    def row(self, sample: int, crop: int = 0) -> tuple[Tensor, int]:
        """([L, F] integers or [L, dim] float32, label) of one crop of a sample."""
        at = sample * self.crops + crop
        return self._entry("tokens", at), int(self.labels[at])

    def latents(self, sample: int, crop: int = 0) -> Tensor | None:
        """[N, D] latents of one crop of a sample; None if the cache has none."""
        return self._entry("latents", sample * self.crops + crop)

    def space(self, sample: int, crop: int = 0) -> Tensor | None:
        """[C, *sides] of one crop in the tokenizer's input space; None if the cache has none."""
        return self._entry("space", sample * self.crops + crop)

    def prefix(self, sample: int, crop: int = 0) -> Tensor | None:
        """[L, F] tokens of the first frames of one crop; None if the cache has none."""
        return self._entry("prefix", sample * self.crops + crop)

    def condition(self, sample: int) -> Condition | None:
        """Features of a sample's text, without a batch axis; None if the cache has none."""
        found = {name: self._entry(name, sample) for name in PER_SAMPLE if name in self.arrays}
        return Condition(**found) if found else None

    def empty_text(self) -> Condition | None:
        """Features of the empty text, [1, ...] each; None if the cache has none."""
        found = {n: self._entry(f"empty_{n}", 0) for n in OF_TEXT if f"empty_{n}" in self.arrays}
        return Condition(**{name: one[None] for name, one in found.items()}) if found else None

    def _entry(self, name: str, at: int) -> Tensor | None:
        if name in OPTIONAL and name not in self.arrays:
            return None
        return torch.from_numpy(np.array(self._array(name)[at]))

    def _array(self, name: str) -> np.ndarray:
        if self._maps is None:
            self._maps = self._map()
        return self._maps[name]

    def _map(self) -> dict[str, np.ndarray]:
        return map_arrays(self.path, layout(self.spec, self.count, self.crops, self.arrays), "r")

    def __getstate__(self) -> dict:
        # A pickled map would carry the whole file.
        return {k: v for k, v in self.__dict__.items() if k != "names"} | {"_maps": None}


def names_text(names: Sequence[str]) -> str:
    """Names as `names.txt` holds them, a line for each; what would break lines is escaped."""
    return "".join(printable(name) + "\n" for name in names)


def read_names(path: Path, meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """The names of a cache's samples; None if it was made without. DataError if they are damaged
    or not `count`."""
    if "names" not in meta:
        return None
    try:
        check_files(path, {NAMES: meta["names"]})
    except SealError as error:
        raise DataError(f"token cache {error}: write the cache anew") from None
    except (KeyError, TypeError):
        raise DataError(f"token cache {path}: damaged {META} (names); write it anew") from None
    names = text_of(path / NAMES).split("\n")[:-1]
    if len(names) != count:
        raise DataError(
            f"token cache {path}: {len(names)} names in {NAMES} for {count} samples; write the "
            "cache anew"
        )
    return tuple(names)


def check_labels(path: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    """DataError unless each label is the number of a class, or -1 for none."""
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < UNLABELED or high >= len(classes):
        found = f"label {high if high >= len(classes) else low}"
        if not classes:
            raise DataError(
                f"token cache {path}: {found}, but no classes; give their names, or -1 for none"
            )
        raise DataError(
            f"token cache {path}: {found}, but only {len(classes)} classes; expected "
            f"0..{len(classes) - 1}, or -1 for none: write the cache anew"
        )


def read_meta(path: Path) -> dict[str, Any]:
    """meta.json with every key there and its seal right; DataError otherwise."""
    file = path / META
    if not file.is_file():
        raise DataError(
            f"token cache {path}: no {META} in it; expected a folder that the cache task wrote"
        )
    try:
        meta, text = read_record(file)
        version = meta["version"]
        if version != VERSION:
            raise DataError(
                f"token cache {path}: format version {version}; this vistok reads {VERSION}: cache "
                "the tokens again, into another folder"
            )
        check_seal(file, meta, text)
        numbers = [meta[key] for key in ("count", "written", "crops")]
        if any(type(n) is not int for n in numbers) or not 0 <= numbers[1] <= numbers[0]:
            raise InputError(f"count, written, crops = {numbers}")
        if numbers[2] < 1 or numbers[0] < 1 or numbers[0] % numbers[2]:
            raise InputError(f"count={numbers[0]} is no multiple of crops={numbers[2]}")
        for key in ("spec", "classes", "arrays", "source", "tokenizer", "files"):
            meta[key]
        names = meta["classes"]
        read_made_by(meta["tokenizer"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("classes are no list of names")
    except DataError:
        raise
    except SealError as error:
        raise DataError(f"token cache {error}: write the cache anew") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"token cache {path}: damaged {META} ({error}); write it anew") from None
    return {key: value for key, value in meta.items() if key != SEAL}


def check_digests(path: Path, meta: Mapping[str, Any]) -> None:
    """Compare the arrays of a finished cache with their digests; DataError names what differs."""
    expected = {"tokens.npy", "labels.npy", *(f"{name}.npy" for name in meta["arrays"])}
    try:
        if set(meta["files"]) != expected:
            raise SealError(f"{path / META}: no digest of each of {', '.join(sorted(expected))}")
        check_files(path, meta["files"])
    except SealError as error:
        raise DataError(f"token cache {error}: write the cache anew") from None


def array_specs(path: Path, described: Any) -> dict[str, ArraySpec]:
    """The optional arrays that meta.json describes; DataError if it describes none that can be."""
    try:
        specs = {name: ArraySpec(tuple(s["shape"]), s["dtype"]) for name, s in described.items()}
        check_specs(specs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"token cache {path}: damaged {META} (arrays: {error}); write it anew"
        ) from None
    return specs


def check_specs(specs: Mapping[str, ArraySpec]) -> None:
    """ValueError, naming the array, unless each is known, has a known type and positive sides."""
    for name, spec in specs.items():
        if name not in OPTIONAL:
            raise InputError(f"'{name}'; expected one of {', '.join(OPTIONAL)}")
        kinds = ("bool",) if name.endswith("text_mask") else ("float32", "float16")
        kinds = ("uint8", "int16", "int32", "int64") if name == "prefix" else kinds
        if spec.dtype not in kinds:
            raise InputError(f"{name} of type {spec.dtype!r}; expected {' or '.join(kinds)}")
        if (not spec.shape) != (name == "score") or any(
            type(side) is not int or side < 1 for side in spec.shape
        ):
            raise InputError(f"{name} of shape {spec.shape}; expected sides of 1 or more")


def describe(specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """The optional arrays as meta.json states them."""
    return {name: asdict(spec) | {"shape": list(spec.shape)} for name, spec in specs.items()}


def layout(
    spec: TokenSpec, count: int, crops: int, arrays: Mapping[str, ArraySpec]
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a cache, by name."""
    if spec.vocab:
        kind = torch.empty(0, dtype=Tokens.dtype(spec)).numpy().dtype
        tokens = (count, spec.length, len(spec.vocab)), kind
    else:
        tokens = (count, spec.length, spec.dim), np.dtype(np.float32)
    found = {"tokens": tokens, "labels": ((count,), np.dtype(np.int64))}
    for name, one in arrays.items():
        entries = count // crops if name in PER_SAMPLE else 1 if name in EMPTY else count
        found[name] = (entries, *one.shape), np.dtype(one.dtype)
    return found


def map_arrays(
    path: Path, expected: Mapping[str, tuple[tuple[int, ...], np.dtype]], mode: str
) -> dict[str, np.ndarray]:
    """Memory maps by name, shapes, types and sizes checked first; nothing is unpickled."""
    return {
        name: _map(path, f"{name}.npy", shape, dtype, mode)
        for name, (shape, dtype) in expected.items()
    }


def _map(path: Path, file: str, shape: tuple[int, ...], dtype: np.dtype, mode: str) -> np.ndarray:
    try:
        found, kind, fortran, start = _header(path / file)
        size = (path / file).stat().st_size
    except Exception as error:  # numpy's reader of damaged headers raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"token cache {path}: {file} cannot be read ({reason}); write the cache anew"
        ) from None
    if found != shape or kind != dtype or fortran:
        raise DataError(
            f"token cache {path}: {file} is {kind} {found}; {META} says {dtype} {shape}; write the "
            "cache anew"
        )
    if size != (whole := start + math.prod(shape) * dtype.itemsize):
        raise DataError(
            f"token cache {path}: {file} has {size} bytes; expected {whole}: write the cache anew"
        )
    return np.memmap(path / file, dtype, mode, start, shape)


def _header(file: Path) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """(shape, type, Fortran order, place of the first number) of an .npy file."""
    with open_regular(file, "rb") as opened:
        version = np.lib.format.read_magic(opened)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise InputError(f"format version {version}; expected 1.0 or 2.0")
        shape, fortran, kind = readers[version](opened)
        if kind.hasobject:
            raise InputError("objects, which are never unpickled")
        return shape, kind, fortran, opened.tell()


def _spec(path: Path, meta: dict[str, Any]) -> TokenSpec:
    try:
        return validate(TokenSpec, meta["spec"], str(path / META), ("spec",))
    except ConfigError as error:
        raise DataError(f"token cache {error}") from None


def _center(meta: dict[str, Any]) -> int:
    """The number of each sample's center crop; 0, unless the source says otherwise."""
    how = meta["source"].get("crops") if isinstance(meta["source"], dict) else None
    center = how.get("center") if isinstance(how, dict) else None
    return center if type(center) is int and 0 <= center < meta["crops"] else 0
