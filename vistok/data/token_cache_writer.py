"""Writes token caches, new or interrupted, by one process or several on one machine.

An interrupted cache resumes at `written` of its `meta.json`, which is raised only after the rows
are on disk. Of several processes each puts its own rows; the leader counts them when all have.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistok.core.records import Condition
from vistok.data.base import UNLABELED, DataError
from vistok.data.token_cache import (
    EMPTY,
    FILES,
    META,
    NAMES,
    OF_TEXT,
    PER_SAMPLE,
    VERSION,
    ArraySpec,
    check_digests,
    check_labels,
    check_specs,
    describe,
    layout,
    map_arrays,
    names_text,
    read_meta,
)
from vistok.storage.files import DRAFT, write_bytes, write_text
from vistok.storage.lineage import Identity, pairing
from vistok.storage.sealed import facts_of_files, sealed
from vistok.tokens import Tokens, TokenSpec


class TokenCacheWriter:
    """Appends tokens to a cache, new or interrupted; use it as a context manager.

    Args:
        path: the folder.
        spec: of the tokens.
        count: rows of the finished cache (samples * crops).
        source: record of the data set that is tokenized.
        tokenizer, sha256: name of the tokenizer and hash of its weights.
        codes_sha256: hash of the weights that make its tokens; None = not known.
        classes: class names of the labels.
        crops: rows of each sample.
        flush_rows: rows after which the files are forced to disk; a crash loses no more.
        leader: True in the process that makes the files and counts; the others join afterwards.
        arrays: the optional arrays that are written too, by name: text, text_mask, pooled, score,
            latents, space, prefix.
        names: path of each sample's file below the data set's folder; None = they have none.
        empty: features of the empty text, [1, ...] each, as far as there are arrays for them.

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
        codes_sha256: str | None = None,
        classes: tuple[str, ...] = (),
        crops: int = 1,
        flush_rows: int = 4096,
        leader: bool = True,
        arrays: Mapping[str, ArraySpec] | None = None,
        empty: Condition | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.path, self.spec, self.count = Path(path), spec, count
        if count < 1 or crops < 1 or count % crops:
            raise DataError(
                f"token cache {path}: count={count} rows with crops={crops}; expected a positive "
                f"multiple of crops"
            )
        self.crops, self.arrays = crops, dict(arrays or {})
        kept = [name for name in OF_TEXT if getattr(empty, name, None) is not None]
        self._empty = {f"empty_{name}": getattr(empty, name) for name in kept}
        self.arrays |= {f"empty_{name}": self.arrays[name] for name in kept}
        try:
            check_specs(self.arrays)
        except ValueError as error:
            raise DataError(f"token cache {path}: {error}") from None
        self._facts = {
            "version": VERSION,
            "spec": spec.model_dump(mode="json"),
            "count": count,
            "crops": crops,
            "classes": list(classes),
            "arrays": describe(self.arrays),
            "source": json.loads(json.dumps(source)),
            "tokenizer": {"name": tokenizer, "sha256": sha256},
        }
        if codes_sha256 is not None:
            self._facts["tokenizer"]["codes_sha256"] = codes_sha256
        self._names = None if names is None else names_text(names).encode()
        if names is not None:
            if len(names) != count // crops:
                raise DataError(
                    f"token cache {path}: {len(names)} names for {count // crops} samples; give "
                    "one for each"
                )
            digest = hashlib.sha256(self._names).hexdigest()
            self._facts["names"] = {"bytes": len(self._names), "sha256": digest}
        self._flush_rows, self._leader = flush_rows, leader
        self._layout = layout(spec, count, crops, self.arrays)
        if not leader or self._begun():
            meta = read_meta(self.path)
            self._compare(meta)
            self.written = self._flushed = meta["written"]
            self._maps = map_arrays(self.path, self._layout, "r" if self.finished else "r+")
            if leader and self.finished:
                check_digests(self.path, meta)
        else:
            self._create()

    @property
    def finished(self) -> bool:
        """True if every row is written; then there is nothing left to do."""
        return self.written == self.count

    def write(
        self,
        tokens: Tokens,
        labels: Tensor | None = None,
        condition: Condition | None = None,
        latents: Tensor | None = None,
        space: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> None:
        """Append the next rows.

        Args:
            labels: [B] integers, None = unlabeled.
            condition: text [B, (K,) M, C], text_mask [B, M] and pooled [B, C], where the cache has
                arrays for them. Of several crops of a sample the first one's are kept.
            latents: [B, N, D], likewise. space: [B, C, *sides], likewise.
            prefix: [B, L, F] tokens of the first frames, likewise.
        """
        self.put(self.written, tokens, labels, condition, latents, space, prefix)
        self.written += len(tokens)
        if self.due(self.written):
            self.flush()

    def put(
        self,
        start: int,
        tokens: Tokens,
        labels: Tensor | None = None,
        condition: Condition | None = None,
        latents: Tensor | None = None,
        space: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> None:
        """Set rows start .. start+B-1 without counting them, as several processes do."""
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
        numbers = np.full(len(tokens), UNLABELED) if labels is None else self._numbers(labels)
        tokens.check()
        more = {"latents": latents, "space": space, "prefix": prefix}
        optional = self._optional(len(tokens), condition, more)
        rows = tokens.values if tokens.indices is None else tokens.indices
        kind = torch.float32 if tokens.indices is None else Tokens.dtype(self.spec)
        self._maps["tokens"][start:stop] = rows.detach().to("cpu", kind).numpy()
        self._maps["labels"][start:stop] = numbers
        firsts = np.arange(start, stop)
        firsts = firsts[firsts % self.crops == 0]  # the first crop of each sample
        for name, values in optional.items():
            if name not in PER_SAMPLE:
                self._maps[name][start:stop] = values
            elif len(firsts):
                self._maps[name][firsts // self.crops] = values[firsts - start]

    def _numbers(self, labels: Tensor) -> np.ndarray:
        """Labels [B] as they are kept; DataError unless each is the number of a class, or -1."""
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise DataError(
                f"token cache {self.path}: labels of type {labels.dtype}; expected integers"
            )
        numbers = labels.cpu().numpy()
        check_labels(self.path, numbers, self._facts["classes"])
        return numbers

    def _optional(
        self, count: int, condition: Condition | None, more: Mapping[str, Tensor | None]
    ) -> dict[str, np.ndarray]:
        """The optional arrays' rows; DataError unless they are what the cache was begun with."""
        given = {name: getattr(condition, name, None) for name in PER_SAMPLE}
        given = {n: x for n, x in (given | dict(more)).items() if x is not None}
        rows = {}
        for name in sorted(given.keys() | self.arrays.keys() - set(EMPTY)):
            spec, values = self.arrays.get(name), given.get(name)
            found = None if values is None else tuple(values.shape)
            expected = None if spec is None else (count, *spec.shape)
            if found != expected:
                raise DataError(
                    f"token cache {self.path}: {name} of shape {found}; this cache was begun with "
                    f"{expected} (None: not kept)"
                )
            kind = getattr(torch, spec.dtype)
            if (values.dtype == torch.bool) != (kind == torch.bool):
                raise DataError(
                    f"token cache {self.path}: {name} of type {values.dtype}; expected {kind}"
                )
            rows[name] = values.detach().to("cpu", kind).numpy()
            if kind == torch.float16 and not np.isfinite(rows[name]).all():
                raise DataError(
                    f"token cache {self.path}: {name} does not fit float16 (largest value "
                    f"{values.abs().max().item():g}); cache it as float32"
                )
        return rows

    def due(self, rows: int) -> bool:
        """True if it is time to force the files to disk, with `rows` rows put."""
        return rows == self.count or rows - self._flushed >= self._flush_rows

    def force(self) -> None:
        """Force the rows that this process put to disk, uncounted."""
        for array in self._maps.values():
            array.flush()

    def count_up(self, rows: int) -> None:
        """Count the first `rows` rows: every process has put and forced its own."""
        self.written = self._flushed = rows
        if self._leader:
            self._save()

    def flush(self) -> None:
        """Force the rows to disk, and only then count them as written.

        Nothing happens without new rows: the digests of a finished cache are of what was written.
        """
        if self.written != self._flushed:
            self.force()
            self.count_up(self.written)

    def __enter__(self) -> TokenCacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def _begun(self) -> bool:
        """True if a row was counted; a cache without one holds nothing, and is made anew."""
        return (self.path / META).exists() and read_meta(self.path)["written"] > 0

    def _create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # Arrays without meta.json are what a crash during creation leaves: nothing was counted.
        found = {p.name for p in self.path.iterdir() if not p.name.startswith(DRAFT)}
        strangers = found - {*FILES, META, NAMES}
        if strangers:
            raise DataError(
                f"token cache {self.path}: the folder holds '{min(strangers)}' and no {META}; "
                f"expected an empty folder or a cache"
            )
        for name in found:  # of a cache that was begun otherwise and holds nothing
            (self.path / name).unlink()
        make = np.lib.format.open_memmap
        self._maps = {
            name: make(self.path / f"{name}.npy", "w+", kind, shape)
            for name, (shape, kind) in self._layout.items()
        }
        for name, one in self._empty.items():
            kind = getattr(torch, self.arrays[name].dtype)
            self._maps[name][:] = one.detach().to("cpu", kind).numpy()
        if self._names is not None:
            write_bytes(self.path / NAMES, self._names)
        self.written = self._flushed = 0
        self.force()
        self._save()

    def _compare(self, meta: dict[str, Any]) -> None:
        mine, begun = self._facts["tokenizer"], meta["tokenizer"]
        if pairing(begun, Identity.of(mine)).fits:
            self._facts["tokenizer"] = begun  # by whose name the cache was begun
        if "names" not in meta:  # of a release that kept none, or of data without
            self._facts.pop("names", None)
        for key, mine in self._facts.items():
            if meta[key] != mine:
                raise DataError(
                    f"token cache {self.path}: it was begun with {key}={_short(meta[key])}, now "
                    f"{key}={_short(mine)}; use another folder or delete this one"
                )

    def _save(self) -> None:
        arrays = [self.path / f"{name}.npy" for name in self._layout] if self.finished else []
        facts = {**self._facts, "written": self.written, "files": facts_of_files(arrays)}
        write_text(self.path / META, sealed(facts))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
