"""The token cache on disk: `meta.json`, `tokens.npy`, `labels.npy` in one folder.

tokens.npy  [count, L, F] in the smallest integer type of the spec ([count, L, dim] float32 if the
            tokens are continuous); labels.npy [count] int64, -1 = unlabeled. Row = sample * crops
            + crop, when each sample was tokenized from several crops.
meta.json   what they are: spec, count, written, crops, classes, source (a data record), tokenizer
            (name, sha256 of its weights). `written` is raised only after the rows are on disk, so
            an interrupted cache goes on where it stood. Of several processes on one machine each
            puts its own rows; the leader counts them when all have.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistok.config import ConfigError, validate
from vistok.data.base import UNLABELLED, DataError
from vistok.storage.files import write_text
from vistok.tokens import Tokens, TokenSpec

VERSION = 1
_META, _TOKENS, _LABELS = "meta.json", "tokens.npy", "labels.npy"


class TokenCacheWriter:
    """Appends tokens to a cache, new or interrupted; use it as a context manager.

    Args:
        path: the folder.
        spec: of the tokens.
        count: rows of the finished cache (samples * crops).
        source: record of the data set that is tokenized.
        tokenizer, sha256: name of the tokenizer and hash of its weights.
        classes: class names of the labels.
        crops: rows of each sample.
        flush_rows: rows after which the files are forced to disk; a crash loses no more.
        leader: whether this process makes the files and counts; the others join afterwards.

    Raises DataError if the folder holds another cache, or other files.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: TokenSpec,
        count: int,
        *,
        source: dict[str, Any],
        tokenizer: str,
        sha256: str,
        classes: tuple[str, ...] = (),
        crops: int = 1,
        flush_rows: int = 4096,
        leader: bool = True,
    ) -> None:
        self.path, self.spec, self.count = Path(path), spec, count
        if count < 1 or crops < 1 or count % crops:
            raise DataError(
                f"token cache {path}: count={count} rows with crops={crops}; expected a positive "
                f"multiple of crops"
            )
        self._facts = {
            "version": VERSION,
            "spec": spec.model_dump(mode="json"),
            "count": count,
            "crops": crops,
            "classes": list(classes),
            "source": json.loads(json.dumps(source)),
            "tokenizer": {"name": tokenizer, "sha256": sha256},
        }
        self._flush_rows, self._leader = flush_rows, leader
        if not leader or (self.path / _META).exists():
            meta = read_meta(self.path)
            self._compare(meta)
            self.written = self._flushed = meta["written"]
            self._tokens, self._labels = map_arrays(self.path, spec, count, "r+")
        else:
            self._create()

    @property
    def finished(self) -> bool:
        """Whether every row is written; then there is nothing left to do."""
        return self.written == self.count

    def write(self, tokens: Tokens, labels: Tensor | None = None) -> None:
        """Append the next rows. labels: [B] integers, None = unlabeled."""
        self.put(self.written, tokens, labels)
        self.written += len(tokens)
        if self.due(self.written):
            self.flush()

    def put(self, start: int, tokens: Tokens, labels: Tensor | None = None) -> None:
        """Set rows start .. start+B-1 without counting them; several processes take turns so."""
        stop = start + len(tokens)
        if stop > self.count:
            state = "is finished" if self.finished else f"has room for {self.count - self.written}"
            raise DataError(
                f"token cache {self.path}: {len(tokens)} more rows, but it {state} "
                f"({self.written} of {self.count} rows written)"
            )
        if tokens.spec != self.spec:
            raise DataError(
                f"token cache {self.path}: tokens of another spec {tokens.spec!r}; expected "
                f"{self.spec!r}"
            )
        if tokens.keep is not None:
            raise DataError(
                f"token cache {self.path}: prefixes cannot be cached; write whole sequences and "
                f"cut them when reading"
            )
        if labels is not None and len(labels) != len(tokens):
            raise DataError(f"token cache {self.path}: {len(labels)} labels for {len(tokens)} rows")
        tokens.check()
        rows = tokens.values if tokens.indices is None else tokens.indices
        kind = torch.float32 if tokens.indices is None else Tokens.dtype(self.spec)
        self._tokens[start:stop] = rows.detach().to("cpu", kind).numpy()
        if labels is not None:
            self._labels[start:stop] = labels.cpu().numpy()
        else:
            self._labels[start:stop] = UNLABELLED

    def due(self, rows: int) -> bool:
        """Whether it is time to force the files to disk, with `rows` rows put."""
        return rows == self.count or rows - self._flushed >= self._flush_rows

    def force(self) -> None:
        """Force the rows that this process put to disk, uncounted."""
        self._tokens.flush()
        self._labels.flush()

    def count_up(self, rows: int) -> None:
        """Count the first `rows` rows: every process has put and forced its own."""
        self.written = self._flushed = rows
        if self._leader:
            self._save()

    def flush(self) -> None:
        """Force the rows to disk, and only then count them as written."""
        self.force()
        self.count_up(self.written)

    def __enter__(self) -> TokenCacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def _create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # Arrays without meta.json are what a crash during creation leaves: nothing was counted.
        strangers = {p.name for p in self.path.iterdir()} - {_TOKENS, _LABELS, _META + ".tmp"}
        if strangers:
            raise DataError(
                f"token cache {self.path}: the folder holds '{min(strangers)}' and no {_META}; "
                f"expected an empty folder or a cache"
            )
        shape, kind = _layout(self.spec, self.count)
        make = np.lib.format.open_memmap
        self._tokens = make(self.path / _TOKENS, "w+", kind, shape)
        self._labels = make(self.path / _LABELS, "w+", np.dtype(np.int64), (self.count,))
        self.written = self._flushed = 0
        self.flush()

    def _compare(self, meta: dict[str, Any]) -> None:
        for key, mine in self._facts.items():
            if meta[key] != mine:
                raise DataError(
                    f"token cache {self.path}: it was begun with {key}={_short(meta[key])}, now "
                    f"{key}={_short(mine)}; use another folder or delete this one"
                )

    def _save(self) -> None:
        write_text(
            self.path / _META, json.dumps({**self._facts, "written": self.written}, indent=1)
        )


class TokenCache:
    """A finished cache, read through memory maps; DataError if it is not whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.meta = read_meta(self.path)
        self.spec = _spec(self.path, self.meta)
        self.count, self.crops = self.meta["count"], self.meta["crops"]
        self.classes = tuple(self.meta["classes"])
        self.center = _center(self.meta)
        if self.meta["written"] != self.count:
            raise DataError(
                f"token cache {self.path}: unfinished, {self.meta['written']} of {self.count} rows "
                f"written; run the command that began it again, it goes on from there"
            )
        self._maps: tuple[np.ndarray, np.ndarray] | None = map_arrays(
            self.path, self.spec, self.count, "r"
        )

    def __len__(self) -> int:
        """Samples; each has `crops` rows."""
        return self.count // self.crops

    def row(self, sample: int, crop: int = 0) -> tuple[Tensor, int]:
        """([L, F] integers or [L, dim] float32, label) of one crop of a sample."""
        if self._maps is None:
            self._maps = map_arrays(self.path, self.spec, self.count, "r")
        tokens, labels = self._maps
        at = sample * self.crops + crop
        return torch.from_numpy(np.array(tokens[at])), int(labels[at])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_maps": None}  # a pickled map would carry the whole file


def read_meta(path: Path) -> dict[str, Any]:
    """meta.json with every key there; DataError otherwise."""
    file = path / _META
    if not file.is_file():
        raise DataError(
            f"token cache {path}: no {_META} in it; expected a folder that the cache task wrote"
        )
    try:
        meta = json.loads(file.read_text("utf-8"))
        version = meta["version"]
        if version != VERSION:
            raise DataError(
                f"token cache {path}: format version {version}; this vistok reads {VERSION}"
            )
        numbers = [meta[key] for key in ("count", "written", "crops")]
        if any(type(n) is not int for n in numbers) or not 0 <= numbers[1] <= numbers[0]:
            raise ValueError(f"count, written, crops = {numbers}")
        if numbers[2] < 1 or numbers[0] < 1 or numbers[0] % numbers[2]:
            raise ValueError(f"count={numbers[0]} is no multiple of crops={numbers[2]}")
        for key in ("spec", "classes", "source", "tokenizer"):
            meta[key]
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"token cache {path}: damaged {_META} ({error}); write it anew") from None
    return meta


def map_arrays(path: Path, spec: TokenSpec, count: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps (tokens, labels), shapes and types checked; nothing is unpickled."""
    shape, kind = _layout(spec, count)
    expected = ((_TOKENS, shape, kind), (_LABELS, (count,), np.dtype(np.int64)))
    maps = []
    for name, want, dtype in expected:
        try:
            array = np.load(path / name, mmap_mode=mode, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("an archive; expected one array")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"token cache {path}: {name} cannot be read ({error}); write the cache anew"
            ) from None
        if array.shape != want or array.dtype != dtype:
            raise DataError(
                f"token cache {path}: {name} is {array.dtype} {array.shape}; {_META} says {dtype} "
                f"{want}; write the cache anew"
            )
        maps.append(array)
    return maps[0], maps[1]


def _layout(spec: TokenSpec, count: int) -> tuple[tuple[int, int, int], np.dtype]:
    if not spec.vocab:
        return (count, spec.length, spec.dim), np.dtype(np.float32)
    kind = torch.empty(0, dtype=Tokens.dtype(spec)).numpy().dtype
    return (count, spec.length, len(spec.vocab)), kind


def _spec(path: Path, meta: dict[str, Any]) -> TokenSpec:
    try:
        return validate(TokenSpec, meta["spec"], str(path / _META), ("spec",))
    except ConfigError as error:
        raise DataError(f"token cache {error}") from None


def _center(meta: dict[str, Any]) -> int:
    """Which of a sample's crops is its center; the first, unless the source says otherwise."""
    how = meta["source"].get("crops") if isinstance(meta["source"], dict) else None
    center = how.get("center") if isinstance(how, dict) else None
    return center if type(center) is int and 0 <= center < meta["crops"] else 0


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
