"""Classes of data sets: their names, and the number of a label as it is stored.

Names come from a shard, a file, the config, or the labels that occur.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vistok.config.bounded import parse_json, read_json, read_text
from vistok.core.errors import InputError
from vistok.core.regular_files import check_regular
from vistok.data.base import UNLABELED, DataError, one_line

MOST_CLASSES = 2**20  # a label far beyond it is no class number, but an id or a time


class ClassNumbers:
    """Maps labels as they are stored to class numbers 0 .. len(classes) - 1.

    A whole number, also one stored as a float, is the class's number; with `named` a text is its
    name. `names`: class numbers by name, {} without `named`.
    """

    def __init__(self, classes: tuple[str, ...], named: bool) -> None:
        self.classes = classes
        self.names = {name: number for number, name in enumerate(classes)} if named else {}

    def __call__(self, label: Any) -> int:
        """The class number; InputError, which says what was expected, if the label has none."""
        if isinstance(label, str) and label in self.names:
            return self.names[label]
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if type(label) is int and 0 <= label < len(self.classes):
            return label
        expected = f"0..{len(self.classes) - 1}" if self.classes else "none, as no other has one"
        if self.names:
            few = ", ".join(self.classes[:3]) + ", ..." * (len(self.classes) > 3)
            expected += f" or a class name ({one_line(few)})"
        raise InputError(f"label {_short(label)}; expected {expected}")


def is_unlabeled(label: Any) -> bool:
    """True for the labels that mean none: null, -1 and the empty text."""
    return label is None or label == UNLABELED or label == ""


def numbered(top: int, where: str) -> tuple[str, ...]:
    """Names "0" .. str(top) of classes that have none; DataError, naming `where`, for too many."""
    if top >= MOST_CLASSES:
        raise DataError(
            f"{where}: label {top}; expected class numbers below {MOST_CLASSES}; this looks "
            f"like an id: choose another column or none"
        )
    return tuple(str(label) for label in range(top + 1))


def occurring(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names from the labels that occur: whole numbers in their order, else bytewise."""
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names, key=os.fsencode))


def feature_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Class names from the Hugging Face feature types in a shard's metadata; () if it has none."""
    try:
        tree = parse_json(metadata.get(b"huggingface", b"{}"), "the shard")
        names = tree["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):  # those of another program
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def names_beside(folder: Path) -> tuple[str, ...]:
    """Class names from `classes.json` in a folder, see `listed_names`; () if it is not there."""
    path = folder / "classes.json"
    return listed_names(path) if path.is_file() else ()


def listed_names(path: Path) -> tuple[str, ...]:
    """Class names from a JSON file; DataError if it holds none.

    A list of names, {"names": [...]}, or [{"label": i, "class_name": ...}, ...].
    """
    try:
        check_regular(path)
        content = read_json(path)
        listed = content["names"] if isinstance(content, dict) else content
        if listed and isinstance(listed[0], dict):
            listed = sorted(listed, key=lambda entry: entry["label"])
            if [entry["label"] for entry in listed] != list(range(len(listed))):
                raise InputError("labels are not 0, 1, 2, ...")
            listed = [entry["class_name"] for entry in listed]
        if not isinstance(listed, list) or any(isinstance(name, dict | list) for name in listed):
            raise InputError("no list of names")
        return tuple(str(name) for name in listed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a list of class names"
        ) from None


def given_names(classes: int | str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Class names from a config: their number, the names, or a file (JSON, or a name per line)."""
    if classes is None:
        return ()
    if isinstance(classes, int):
        return numbered(classes - 1, "data.classes")
    if isinstance(classes, tuple):
        return classes
    path = Path(classes).expanduser()
    if path.suffix == ".json":
        return listed_names(path)
    try:
        check_regular(path)
        return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a class name on each line"
        ) from None


def _short(label: Any) -> str:
    text = repr(label) if not isinstance(label, int) or abs(label) < 10**20 else "beyond 10**20"
    return text if len(text) <= 60 else f"{text[:57]}..."
