"""Pairs of a generated image and its original on disk: PNG files, an index and a sealed record.

CLASS/NAME.png   the generated images.
index.jsonl      one line per image, in order: file, original (the sample's name in the data set
                 that was encoded), index (its place there), label, sha256 of the PNG. A line is
                 written only after its image is on disk, so the lines are the finished rows.
pairs.json       version, count, how they were made (`originals`: data config, split and record;
                 tokenizer, generator, sigma, seed, sampling), `index`: size and sha256 of
                 index.jsonl once all rows are there, and a seal over itself.

"Image Tokenizer Needs Post-Training" (arXiv 2509.12474), stage two: a generator redraws a share of
each image's tokens; the decoder learns to give the original all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from vistok.config.bounded import parse_json, read_text
from vistok.core.errors import InputError
from vistok.data.base import UNLABELED, DataError
from vistok.storage.files import DRAFT, sync, unwritten, write_bytes, write_text
from vistok.storage.sealed import SEAL, SealError, check_seal, read_record, sealed
from vistok.storage.weights import sha256

VERSION = 1
RECORD, INDEX = "pairs.json", "index.jsonl"
_LARGEST = 2**30  # bytes of an index
_KEPT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
_KEYS = ("count", "originals", "tokenizer", "generator", "sigma", "seed", "sampling", "index")


@dataclass(frozen=True)
class PairRow:
    """A line of the index."""

    file: str
    """CLASS/NAME.png, below the folder."""
    original: str
    """Name of the original sample."""
    index: int
    """Place of the original in its data set."""
    label: int
    sha256: str
    """Hash of the PNG file."""


class Pairs:
    """Finished pairs; DataError, one line, if they are unfinished or damaged.

    The images themselves are compared with their hashes when they are read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.facts = read_facts(self.path)
        known, count = self.facts["index"], self.facts["count"]
        if known is None:
            done = sum(1 for _ in _whole_lines(self.path / INDEX))
            raise DataError(
                f"pairs {self.path}: unfinished, {done} of {count} rows written; run the command "
                "that began them again, it resumes there"
            )
        try:
            file = self.path / INDEX
            if (
                not file.is_file()
                or {"bytes": file.stat().st_size, "sha256": sha256(file)} != known
            ):
                raise InputError(f"{INDEX} is not the file that {RECORD} describes")
            self.rows = tuple(read_index(self.path))
            if len(self.rows) != count:
                raise InputError(f"{INDEX} has {len(self.rows)} rows; expected {count}")
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from None

    def __len__(self) -> int:
        return len(self.rows)


def read_facts(path: Path) -> dict[str, Any]:
    """pairs.json with every key there and its seal right; DataError otherwise."""
    file = path / RECORD
    if not file.is_file():
        raise DataError(
            f"pairs {path}: no {RECORD} in it; expected a folder that a task of kind preserve wrote"
        )
    try:
        facts, text = read_record(file)
        if facts.get("version") != VERSION:
            raise DataError(
                f"pairs {path}: format version {facts.get('version')!r}; this vistok reads "
                f"{VERSION}: make the pairs again, in another folder"
            )
        check_seal(file, facts, text)
        _check_facts(facts)
    except SealError as error:
        raise DataError(f"pairs {error}: make the pairs anew") from None
    except InputError as error:
        raise _damaged(path, error) from None
    return {key: value for key, value in facts.items() if key != SEAL}


def _check_facts(facts: Mapping[str, Any]) -> None:
    """InputError for a record without a key that readers take for granted, or of another type."""
    missing = [key for key in _KEYS if key not in facts]
    if missing:
        raise InputError(f"no '{missing[0]}' in {RECORD}")
    if type(facts["count"]) is not int or facts["count"] < 1:
        raise InputError(f"count={str(facts['count'])[:40]}")
    originals, known = facts["originals"], facts["index"]
    kinds = {"config": dict, "split": str, "record": dict}
    if not isinstance(originals, dict) or any(
        not isinstance(originals.get(key), kind) for key, kind in kinds.items()
    ):
        raise InputError(f"originals: expected {', '.join(kinds)}")
    if originals["split"] not in ("train", "val"):
        raise InputError(f"originals.split={originals['split'][:40]!r}")
    for key in ("tokenizer", "generator"):
        if not isinstance(facts[key], dict) or not isinstance(facts[key].get("sha256"), str):
            raise InputError(f"{key}: expected its name and sha256")
    if known is not None and not (isinstance(known, dict) and set(known) == {"bytes", "sha256"}):
        raise InputError("index: expected bytes and sha256")


def read_index(path: Path) -> Iterable[PairRow]:
    """The rows of index.jsonl; InputError for a line that is none, or names a file elsewhere."""
    for number, line in enumerate(_whole_lines(path / INDEX), 1):
        yield _row(line, number)


def _row(line: str, number: int) -> PairRow:
    where = f"line {number} of {INDEX}"
    found = parse_json(line, where)
    if not isinstance(found, dict) or set(found) != {field.name for field in fields(PairRow)}:
        raise InputError(f"{where}: not a row of pairs")
    kinds = {"file": str, "original": str, "index": int, "label": int, "sha256": str}
    for key, kind in kinds.items():
        if type(found[key]) is not kind:
            raise InputError(f"{where}: {key}={str(found[key])[:40]!r}")
    if found["index"] < 0 or found["label"] < UNLABELED:
        raise InputError(f"{where}: index={found['index']}, label={found['label']}")
    parts = PurePosixPath(found["file"]).parts
    if len(parts) != 2 or not all(part == _plain(part) for part in parts):
        raise InputError(f"{where}: file={found['file'][:60]!r} is not CLASS/NAME.png")
    return PairRow(**found)


def _whole_lines(file: Path) -> list[str]:
    """Lines of an index; one that a kill cut off is left out."""
    if not file.exists():
        return []
    text = read_text(file, _LARGEST)
    return text[: text.rfind("\n") + 1].split("\n")[:-1]


def _damaged(path: Path, reason: object) -> DataError:
    text = " ".join(str(reason).removeprefix(f"{path / RECORD}: ").split())
    return DataError(f"pairs {path}: damaged ({text}); make the pairs anew")


def file_of(folder: str, original: str, index: int) -> str:
    """CLASS/NAME.png for an original sample: its class's name, and its own with its place."""
    name = _plain(PurePosixPath(original.replace("\\", "/")).stem)
    return f"{_plain(folder) or 'unlabeled'}/{name or 'sample'}-{index}.png"


def _plain(text: str) -> str:
    """Text as a file's name on every system; at most 100 characters, never hidden."""
    return "".join(c if c in _KEPT else "_" for c in text)[:100].lstrip(".")


class PairsWriter:
    """Writes pairs, new or interrupted, by one process or several on one machine.

    Args:
        path: the folder.
        count: rows of the finished pairs.
        facts: how they are made, plain JSON; an interrupted folder must have been begun with the
            same.
        every: rows of one batch; a batch that a kill cut is made anew as a whole.
        leader: True in the process that keeps record and index; the others join afterwards.

    Raises DataError if the folder holds other pairs, or other files.
    """

    def __init__(
        self, path: Path, count: int, facts: Mapping[str, Any], every: int, leader: bool = True
    ) -> None:
        self.path, self.count, self.leader = path, count, leader
        self._facts = {"version": VERSION, "count": count, **json.loads(json.dumps(facts))}
        if leader:
            self._begin(every)
        lines = _whole_lines(path / INDEX)
        self.written = len(lines)

    @property
    def finished(self) -> bool:
        return self.written == self.count

    def put(self, file: str, png: bytes) -> str:
        """Write an image whole; its sha256."""
        (self.path / file).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path / file, png)
        return hashlib.sha256(png).hexdigest()

    def count_up(self, rows: list[PairRow]) -> None:
        """Take the next rows into the index: the images of all are on disk."""
        self.written += len(rows)
        if not self.leader:
            return
        index = self.path / INDEX
        try:
            with index.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritten(index, error) from None
        if self.finished:
            self._save({"bytes": index.stat().st_size, "sha256": sha256(index)})

    def _begin(self, every: int) -> None:
        """Make the folder, or compare it with what is asked and drop what a kill left."""
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / RECORD).exists():
            known = read_facts(self.path)
            for key, mine in self._facts.items():
                if known.get(key) != mine:
                    raise DataError(
                        f"pairs {self.path}: begun with {key}={_short(known.get(key))}, now "
                        f"{key}={_short(mine)}; use another out or delete this one"
                    )
            if known["index"] is not None:
                Pairs(self.path)  # as they were finished
                return
        else:
            strangers = sorted(p.name for p in self.path.iterdir() if not p.name.startswith(DRAFT))
            if strangers:
                raise DataError(
                    f"pairs {self.path}: the folder holds '{strangers[0]}' and no {RECORD}; "
                    "expected an empty folder or pairs"
                )
            self._save(None)
        for draft in [*self.path.glob(f"{DRAFT}*"), *self.path.glob(f"*/{DRAFT}*")]:
            draft.unlink(missing_ok=True)
        lines = _whole_lines(self.path / INDEX)
        kept = len(lines) if len(lines) == self.count else len(lines) // every * every
        write_text(self.path / INDEX, "".join(f"{line}\n" for line in lines[:kept]))
        sync(self.path)
        if kept == self.count:  # killed between the last line and the record
            self.written = kept
            self.count_up([])

    def _save(self, index: dict[str, Any] | None) -> None:
        write_text(self.path / RECORD, sealed({**self._facts, "index": index}))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
