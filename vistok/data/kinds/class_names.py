"""Class names of data sets whose labels are bare numbers: from a shard, a file, or the config."""

from __future__ import annotations

from pathlib import Path

from vistok.config.bounded import parse_json, read_json, read_text
from vistok.core.errors import InputError
from vistok.data.base import DataError, one_line


def class_names(metadata: dict[bytes, bytes], folder: Path, label: str) -> tuple[str, ...]:
    """Names from the Hugging Face feature types in a shard, else from `classes.json` beside it.

    classes.json: a list of names, {"names": [...]}, or [{"label": i, "class_name": ...}, ...].
    () if neither is there.
    """
    try:
        features = parse_json(metadata.get(b"huggingface", b"{}"), "the shard")["info"]["features"]
        names = features[label]["names"]
        return tuple(str(name) for name in names)
    except (ValueError, KeyError, TypeError):  # no feature types, or those of another program
        pass
    path = folder / "classes.json"
    if not path.is_file():
        return ()
    return listed_names(path)


def listed_names(path: Path) -> tuple[str, ...]:
    """Class names from a JSON file, see `class_names`; DataError if it holds none."""
    try:
        content = read_json(path)
        listed = content["names"] if isinstance(content, dict) else content
        if listed and isinstance(listed[0], dict):
            listed = sorted(listed, key=lambda entry: entry["label"])
            if [entry["label"] for entry in listed] != list(range(len(listed))):
                raise InputError("labels are not 0, 1, 2, ...")
            listed = [entry["class_name"] for entry in listed]
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
        return tuple(str(label) for label in range(classes))
    if isinstance(classes, tuple):
        return classes
    path = Path(classes).expanduser()
    if path.suffix == ".json":
        return listed_names(path)
    try:
        return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected a class name on each line"
        ) from None
