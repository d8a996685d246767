"""The label column of parquet shards: its type in each of them, and the classes it speaks of.

Whole numbers (also stored as floats or booleans) are class numbers, texts are class names. Null and
-1, and of texts the empty one, mean unlabeled. Anything else is refused when a shard is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vistok.core.regular_files import check_regular
from vistok.data.base import UNLABELED, DataError, one_line
from vistok.data.kinds.class_names import (
    ClassNumbers,
    feature_names,
    given_names,
    names_beside,
    numbered,
    occurring,
)

Kind = Literal["number", "text", "none"]


@dataclass(frozen=True)
class LabelColumn:
    """The label column of one shard. names: those of Hugging Face feature types, if it has any."""

    path: Path
    kind: Kind
    names: tuple[str, ...]
    labels: tuple[Any, ...]  # the different ones that occur: numbers or texts


def label_classes(
    train: Sequence[Path],
    others: Sequence[Path],
    name: str,
    given: Any,
    missing: DataError | None = None,
) -> ClassNumbers:
    """The classes of the shards `train`: those that are given, else those of Hugging Face feature
    types, of `classes.json` beside the first shard, else the labels that occur.

    Args:
        others: shards of which nothing but the type is looked at. name: of the column.
        given: `classes` of the config. missing: raised if classes must be taken from labels that
            occur, since `train` are not the shards of training.

    Raises DataError if a shard holds no labels, or if shards contradict each other.
    """
    columns = [_read(path, name, labels=False) for path in (*train, *others)]
    _agree(columns, name, given)
    listed = next((column.names for column in columns if column.names), ())
    texts = [column.path for column in columns if column.kind == "text"]
    if texts and isinstance(given, int):
        raise DataError(
            f"data.parquet {texts[0]}: the column '{name}' holds strings, and classes={given} "
            f"gives no names; give the names, or leave classes out"
        )
    names = given_names(given) or listed or names_beside(train[0].parent)
    if names:
        return ClassNumbers(names, named=not isinstance(given, int))
    if missing is not None:
        raise missing
    if texts:
        found = (label for path in train for label in _read(path, name).labels if label)
        return ClassNumbers(occurring(found), named=True)
    tops = [(max(_read(path, name).labels, default=UNLABELED), path) for path in train]
    top, path = max(tops)
    return ClassNumbers(numbered(int(top), f"data.parquet {path}"), named=False)


def _agree(columns: Sequence[LabelColumn], name: str, given: Any) -> None:
    """DataError if shards hold labels of different kinds or, unless given, other class names."""
    kinds = {column.kind: column.path for column in columns if column.kind != "none"}
    if len(kinds) > 1:
        raise DataError(
            f"data.parquet {kinds['number']}: the column '{name}' holds numbers, but in "
            f"{kinds['text']} strings; write all shards alike, or set label_column=null"
        )
    listed = [column for column in columns if column.names]
    for column in listed:
        if given is None and column.names != listed[0].names:
            raise DataError(
                f"data.parquet {column.path}: other class names in the column '{name}' than in "
                f"{listed[0].path}; write all shards alike, or give classes"
            )


def _read(path: Path, name: str, labels: bool = True) -> LabelColumn:
    """The label column of a shard; DataError, naming file, column and type, if it holds none.

    Without `labels` they are left out, unless they may be faulty.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        check_regular(path)
        file = pq.ParquetFile(path)
        field = file.schema_arrow.field(name)
        kind = _kind(field.type)
        names = feature_names(file.schema_arrow.metadata or {}, name)
        found: tuple[Any, ...] = ()
        if kind in ("number", "text") and (labels or pa.types.is_floating(field.type)):
            column = file.read(columns=[name], use_threads=False)[name]
            plain = pa.large_string() if kind == "text" else _number(field.type)
            found = tuple(pc.unique(column.cast(plain)).drop_null().to_pylist())
        file.close()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"data.parquet {path}: the column '{name}' cannot be read ({one_line(error)}); fetch "
            f"the shard again, or leave it out of the list"
        ) from None
    where = f"data.parquet {path}: the column '{name}' (of type {one_line(field.type)[:80]})"
    if kind is None:
        raise DataError(
            f"{where} holds no labels; expected whole numbers or strings: set label_column, or "
            f"null for none"
        )
    strange = [x for x in found if isinstance(x, float) and not x.is_integer()]
    if strange:
        raise DataError(
            f"{where} holds {strange[0]}; expected whole numbers, with null or -1 for unlabeled "
            f"rows: write it anew, or set label_column=null"
        )
    return LabelColumn(path, kind, names, found)


def _kind(kind: Any) -> Kind | None:
    """The kind of labels that an Arrow type can hold; None if it can hold none."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_null(kind):
        return "none"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return "number"
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    return "text" if any(test(kind) for test in texts) else None


def _number(kind: Any) -> Any:
    """The Arrow type in which numbers of a type are compared: without dictionary or half floats."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return pa.int8()
    return pa.float64() if types.is_floating(kind) else kind
