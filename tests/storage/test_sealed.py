"""A sealed file is read as it was written, or not at all."""

from __future__ import annotations

import json

import pytest

from vistok.config.bounded import parse_json
from vistok.storage.sealed import SealError, check_files, facts_of_files, read_sealed, sealed

RECORD = {"rFID": 1.25, "name": "één", "shares": [0.1, None, True], "below": {"1": -0.0}}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(sealed(RECORD), encoding="utf-8")
    return path


def test_a_record_comes_back(written):
    assert read_sealed(written) == RECORD
    assert json.loads(written.read_text("utf-8"))["rFID"] == 1.25  # JSON for everybody else


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("1.25", "0.25"),
        lambda text: text.replace('"name"', '"nmae"'),
        lambda text: text.replace("true", "1"),
        lambda text: text.replace("null", "false"),
        lambda text: text.replace('"shares"', '"rFID": 9, "shares"'),  # JSON's last one counts
        lambda text: text.replace("\n", " "),
        lambda text: text + " ",
        lambda text: json.dumps(RECORD, indent=1),
        lambda text: text.replace('"seal"', '"saal"'),
    ],
)
def test_any_edit_shows(written, edit):
    written.write_text(edit(written.read_text("utf-8")), encoding="utf-8")
    with pytest.raises(SealError, match=r"record\.json: its seal does not fit") as caught:
        read_sealed(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b"[" * 200_000, b'"a"'])
def test_what_is_no_record_is_one_line(written, data):
    written.write_bytes(data)
    with pytest.raises(SealError, match=r"record\.json") as caught:
        read_sealed(written)
    assert "\n" not in str(caught.value)


def test_files_are_compared(tmp_path):
    paths = [tmp_path / name for name in ("a.bin", "b.bin")]
    for path in paths:
        path.write_bytes(b"123")
    facts = facts_of_files(paths)
    check_files(tmp_path, facts)
    paths[1].write_bytes(b"124")
    with pytest.raises(SealError, match=r"b\.bin: its sha256"):
        check_files(tmp_path, facts)
    paths[1].write_bytes(b"12")
    with pytest.raises(SealError, match=r"b\.bin: 2 bytes; expected 3"):
        check_files(tmp_path, facts)
    paths[0].unlink()
    with pytest.raises(SealError, match=r"a\.bin: missing"):
        check_files(tmp_path, facts)
    with pytest.raises(SealError, match="outside of its folder"):
        check_files(tmp_path, {"../a.bin": {"bytes": 3, "sha256": ""}})


def test_a_file_that_is_replaced_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    """As a checkpoint's manifest is when its score enters it."""
    path = tmp_path / "record.json"
    path.write_text(sealed({"score": None}))

    def replaced(text, source):
        path.write_text(sealed({"score": 1.0}))
        return parse_json(text, source)

    monkeypatch.setattr("vistok.storage.sealed.parse_json", replaced)
    assert read_sealed(path) == {"score": None}
