"""Pairs for post-training: a generated image as input, its original as what must be rebuilt.

The folders are those that a task of kind preserve wrote. Originals are read from the data set that
was encoded, by their place and name, cropped as they were then and never augmented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from vistok.config import Config, UserError
from vistok.config.overrides import merge
from vistok.config.registry import build, register
from vistok.config.validation import validate_part
from vistok.core.errors import InputError
from vistok.data.addresses import check_addresses
from vistok.data.base import BadSample, DataError, Dataset, Sample, Split, held_out, manifest_hash
from vistok.data.decode import images
from vistok.data.pairs import RECORD, PairRow, Pairs, read_facts

_SAME = ("manifest", "size", "crop", "filter")  # of the originals' record, then and now
_NO_IMAGES = ("pairs", "tokens")  # kinds of data that no pairs can be made of


class PairsConfig(Config):
    """Generated images and their originals: folders that the preserve task wrote."""

    kind: Literal["pairs"] = "pairs"
    path: str
    """The pairs of the training split (and of the validation share)."""
    val_path: str | None = None
    """The pairs of the validation split."""
    val_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of `path` held out for validation, by a stable hash of the original's name."""
    originals: dict[str, Any] = Field(default_factory=dict)
    """Keys of the originals' data config that have other values now, such as {path: moved/here}."""

    @model_validator(mode="after")
    def _places(self) -> PairsConfig:
        if self.val_share is not None and self.val_path is not None:
            raise InputError(
                f"got val_share={self.val_share} and val_path={self.val_path}; give one of them"
            )
        return self


@register("data", PairsConfig)
class GeneratedPairs:
    """The data part `pairs`."""

    def __init__(self, config: PairsConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """Read the index and open the originals; DataError if one is damaged, gone or another.

        `augment` changes nothing: input and target would have to be cut alike.
        """
        config = self.config
        if split == "val" and config.val_path is None and config.val_share is None:
            raise DataError(
                f"data.pairs {config.path}: no validation split; give val_path or val_share"
            )
        apart = split == "val" and config.val_path is not None
        pairs = Pairs(config.val_path if apart else config.path)
        return PairsDataset(
            pairs, _opened(pairs, config), None if apart else config.val_share, split
        )


def originals_of(config: PairsConfig) -> Config:
    """The data config of the images that pairs were made of; DataError, one line, if there is no
    such record."""
    place = Path(config.path).expanduser()
    return _config(place, read_facts(place), config)


class PairsDataset(Dataset):
    """Samples whose pixels are generated, and whose `target` is the original.

    A PNG that is not the one that was written, and an original that is another by name, are bad
    samples.
    """

    targets = True

    def __init__(
        self, pairs: Pairs, originals: Dataset, val_share: float | None, split: Split
    ) -> None:
        self.root, self.facts, self.originals = pairs.path, pairs.facts, originals
        self.split, self.val_share = split, val_share
        self.rows: tuple[PairRow, ...] = pairs.rows
        if val_share is not None:
            keep = split == "val"
            self.rows = tuple(r for r in self.rows if held_out(r.original, val_share) == keep)
        if not self.rows:
            raise DataError(
                f"data.pairs {self.root}: val_share={val_share} leaves no pair to the {split} "
                "split; change val_share or give val_path"
            )
        self.classes, self.size = originals.classes, originals.size
        self.texts = originals.texts

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        row = self.rows[index]
        data = images.content(self.root / row.file, row.file)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise BadSample(row.file, "its sha256 is not that of the index; it is damaged")
        pixels = images.to_tensor(images.decode(data, row.file))
        original = self.originals.sample(row.index)
        if original.name != row.original or original.label != row.label:
            raise BadSample(
                row.file,
                f"its original is now {original.name} (label {original.label}), not {row.original} "
                f"(label {row.label})",
            )
        if pixels.shape != original.pixels.shape:
            sides = "x".join(map(str, pixels.shape[1:]))
            raise BadSample(row.file, f"has {sides} pixels, its original another size")
        return Sample(
            index, pixels, row.label, row.file, text=original.text, target=original.pixels
        )

    def record(self) -> dict[str, Any]:
        """`manifest` covers the generated images and the record of their originals."""
        facts, originals = self.facts, self.facts["originals"]
        lines = [f"index {facts['index']['sha256']}", f"originals {originals['record']}"]
        if self.val_share is not None:
            lines.append(f"{self.split} val_share={self.val_share}")
        made = {key: facts[key] for key in ("tokenizer", "generator", "sigma", "seed", "sampling")}
        return {
            "kind": "pairs",
            "source": str(self.root),
            "split": self.split,
            "val_share": self.val_share,
            "count": len(self),
            "classes": len(self.classes),
            **made,
            "originals": originals["record"],
            "manifest": manifest_hash(lines),
        }


def _opened(pairs: Pairs, config: PairsConfig) -> Dataset:
    """The data set of the originals, as it was when it was encoded; DataError for another one."""
    known = pairs.facts["originals"]
    try:
        found = build(_config(pairs.path, pairs.facts, config)).open(known["split"], augment=False)
    except DataError as error:
        raise DataError(
            f"data.pairs {pairs.path}: its originals: {error}; if they were moved, name their "
            "place with originals, e.g. 'data.originals={path: here}'"
        ) from None
    record, wanted = found.record(), known["record"]
    differs = next((key for key in _SAME if record.get(key) != wanted.get(key)), None)
    if differs is not None or found.spec is not None:
        told = (f"{str(one.get(differs))[:12]}" for one in (wanted, record))
        raise DataError(
            f"data.pairs {pairs.path}: made of other originals than those that are there now "
            f"({differs}: {' is now '.join(told)}): put them back, or make the pairs again"
        )
    last = max(row.index for row in pairs.rows)
    if last >= len(found) or max(row.label for row in pairs.rows) >= max(1, len(found.classes)):
        raise DataError(
            f"data.pairs {pairs.path}: its index names sample {last} of {len(found)} originals of "
            f"{len(found.classes)} classes; make the pairs again"
        )
    return found


def _config(place: Path, facts: Mapping[str, Any], config: PairsConfig) -> Config:
    """The originals' data config with the changes of `config`; one line for what is wrong."""
    source = f"{place / RECORD}"
    tree = merge(facts["originals"]["config"], config.originals)
    if tree.get("kind") in _NO_IMAGES:
        raise DataError(
            f"{source}: originals of kind {tree['kind']}; expected a kind of images: make the "
            "pairs again"
        )
    try:
        found = validate_part("data", tree, f"{source}: originals")
        check_addresses(found, source, config.originals, "data.originals")
    except UserError as error:
        raise DataError(f"data.pairs {error}") from None
    return found
