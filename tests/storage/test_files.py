"""Files are replaced whole or stay as they were; foreign files are read without running them."""

from __future__ import annotations

import os

import pytest
import torch

from vistok.config import UserError
from vistok.storage.files import UnwrittenError, replacing, write_bytes, write_text
from vistok.storage.foreign import read_file
from vistok.storage.weights import WeightsError


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "één")
    assert path.read_text("utf-8") == "één"
    write_bytes(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01" and os.listdir(tmp_path) == ["a.json"]


def test_links_are_replaced_never_written_through(tmp_path):
    other, path = tmp_path / "other", tmp_path / "a.txt"
    other.write_text("mine")
    path.symlink_to(other)
    (tmp_path / f".writing_a.txt.{os.getpid()}").symlink_to(other)
    write_text(path, "new")
    assert other.read_text() == "mine" and path.read_text() == "new" and not path.is_symlink()


def test_an_error_on_the_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_refuses_is_told_in_one_line(tmp_path, monkeypatch, fails):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with fails(UnwrittenError, "a.txt: cannot be written .No space left on device.; make space"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with fails(UserError, "nothing/a.txt: cannot be written"):
        write_text(tmp_path / "nothing" / "a.txt", "new")


def test_what_a_foreign_file_holds(tmp_path, fails):
    torch.save({"step": 3, "state": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    found = read_file(tmp_path / "a.pth")
    assert found["step"] == 3 and torch.equal(found["state"]["w"], torch.ones(2))
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "code.pt"))
    with fails(WeightsError, "code.pt: it is TorchScript, which is code"):
        read_file(tmp_path / "code.pt")
    os.mkfifo(tmp_path / "pipe.pth")
    with fails(UserError, "pipe.pth: is a named pipe"):
        read_file(tmp_path / "pipe.pth")
    with fails(WeightsError, "none.pth: no such weights file"):
        read_file(tmp_path / "none.pth")
