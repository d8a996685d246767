"""Text and JSON of somebody else: a regular file, so large, nested so deep; else one line."""

import os

import pytest

from vistok.config import InputError
from vistok.config.bounded import DEEPEST, parse_json, read_json, read_text


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def test_json_within_the_bounds(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"a": [1, {"b": null}]}')
    assert read_json(file) == {"a": [1, {"b": None}]}
    assert parse_json(nested(DEEPEST), "a header") == parse_json(nested(DEEPEST).encode(), "")
    assert parse_json("[NaN]", "", parse_constant=lambda _: None) == [None]


@pytest.mark.parametrize("depth", [DEEPEST + 2, 900, 200_000], ids=str)
@pytest.mark.parametrize("form", [("[", "]"), ('{"a":[', "]}")], ids=["lists", "both"])
def test_json_that_is_too_deep(tmp_path, fails, depth, form):
    file = tmp_path / "config.json"
    file.write_text(nested(depth, *form).replace("[]", "[1]"))
    with fails(InputError, rf"config\.json: nested more than {DEEPEST} deep"):
        read_json(file)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[1", "config.json: not JSON"),
        (b"\xff[1]", "config.json: not text in UTF-8"),
        (b"9" * 5000, "config.json: not JSON"),
        (b" " * 200, "config.json: 200 bytes; expected at most 100"),
    ],
    ids=["cut", "binary", "digits", "large"],
)
def test_files_that_are_no_json(tmp_path, fails, data, words):
    (tmp_path / "config.json").write_bytes(data)
    with fails(InputError, words):
        read_json(tmp_path / "config.json", most=10_000 if len(data) > 200 else 100)


def test_what_is_no_regular_file_is_never_opened(tmp_path, fails):
    os.mkfifo(tmp_path / "pipe.json")
    for place in (tmp_path / "pipe.json", tmp_path, "/dev/zero"):
        with fails(InputError, "not a regular file"):
            read_text(place)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.json")
