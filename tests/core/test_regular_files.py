"""Pipes, sockets and devices are refused at once, whatever they are called."""

import os
import pickle
import socket
import threading

import pytest

from vistok.core.errors import UserError
from vistok.core.regular_files import IrregularFileError, check_regular, open_regular


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Names of files that are none, and how they are called in errors."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is at most 107 bytes long
    os.mkfifo("pipe.png")
    os.symlink("pipe.png", "link.png")
    os.symlink("/dev/zero", "endless.png")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        yield {
            "pipe.png": "a named pipe",
            "link.png": "a named pipe",
            "endless.png": "a device",
            "socket.png": "a socket",
        }


def test_each_kind_is_refused_by_name(odd, fails):
    for name, kind in odd.items():
        for refuse in (check_regular, open_regular, lambda path: open_regular(path, "rb")):
            with fails(IrregularFileError, f"^{name}: is {kind}.*expected a regular file"):
                refuse(name)


def test_files_are_opened_as_always(tmp_path, odd):
    (tmp_path / "text.txt").write_text("ä", encoding="utf-8")
    os.symlink("text.txt", "link.txt")
    with open_regular("link.txt", encoding="utf-8") as file:
        assert file.read() == "ä" and not os.get_inheritable(file.fileno())
    with open_regular(tmp_path / "text.txt", "rb", buffering=0) as file:
        assert file.read() == "ä".encode()
    check_regular("gone"), check_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular("gone")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_a_pipe_that_comes_after_the_check_is_not_waited_for(odd, monkeypatch):
    monkeypatch.setattr("vistok.core.regular_files.check_regular", lambda path: None)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    errors = []

    def read():
        try:
            open_regular("pipe.png")
        except IrregularFileError as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert len(errors) == 1
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_the_error_travels_between_processes(odd):
    with pytest.raises(UserError) as caught:
        check_regular("pipe.png")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
