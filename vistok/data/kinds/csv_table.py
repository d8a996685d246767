"""A csv that lists files: its columns, and its rows with every value in its column."""

from __future__ import annotations

import csv
from pathlib import Path

from vistok.core.regular_files import open_regular
from vistok.data.base import DataError


def read_table(path: Path, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a csv in UTF-8; DataError, naming the line, if a value has no column.

    Blanks around names and values are no part of them. kind: of the data, for messages.
    """
    where = f"data.{kind} {path}"
    rows: list[dict[str, str]] = []
    try:
        with open_regular(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            columns = [name.strip() for name in next(reader, [])]
            for values in reader:
                if not values:  # an empty line
                    continue
                values = [value.strip() for value in values]
                while len(values) > len(columns) and not values[-1]:
                    values.pop()
                if len(values) != len(columns):
                    raise DataError(
                        f"{where}: line {reader.line_num} has {len(values)} values for "
                        f"{len(columns)} columns; put values that hold commas into quotes"
                    )
                rows.append(dict(zip(columns, values, strict=True)))
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a csv in UTF-8 ({error})") from None
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the column '{twice}' is there twice; rename one")
    return columns, rows


def missing_column(path: Path, kind: str, column: str, columns: list[str]) -> DataError:
    """The error of a csv that lacks a column, with those that it has."""
    has, hint = ", ".join(columns) or "none", ""
    if len(columns) == 1 and any(sign in columns[0] for sign in ";\t|"):
        hint = "; expected commas between columns"
    alike = next((name for name in columns if name.casefold() == column.casefold()), None)
    if alike is not None:
        hint = f"; rename it, or name it as it is written: {alike}"
    return DataError(f"data.{kind} {path}: no column '{column}'; it has {has}{hint}")
