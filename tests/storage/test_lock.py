"""The lock of a folder: it names its holder, ends with it, and is seen from other machines."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from vistok.storage import lock as locks
from vistok.storage.files import UnwrittenError
from vistok.storage.lock import InUseError, folder_lock


@pytest.fixture
def child(tmp_path):
    """child(work) runs `work(say)` in a fork until it called `say()`; its pid."""
    pids = []

    def start(work) -> int:
        read, write = os.pipe()
        if not (pid := os.fork()):
            try:
                work(lambda: os.write(write, b"."))
                time.sleep(60)
            finally:
                os._exit(1)
        pids.append(pid)
        os.close(write)
        assert os.read(read, 1) == b"."
        os.close(read)
        return pid

    yield start
    for pid in pids:
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def held_by(folder: Path, **changes) -> None:
    """A lock's file that another process left or holds, as this one would write it."""
    with folder_lock(folder, "training"):
        facts = json.loads((folder / ".lock").read_text())
    (folder / ".lock").write_text(json.dumps({**facts, "token": "other", **changes}))


def test_the_second_is_refused_with_the_name_of_the_first(tmp_path, fails):
    with folder_lock(tmp_path, "training"):
        who = f"{tmp_path}: in use by process {os.getpid()} on .*; training\\) since 20"
        with fails(InUseError, who, "wait for its end, stop it, or use another folder"):
            with folder_lock(tmp_path, "training"):
                pass
    with folder_lock(tmp_path, "training"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing_and_a_living_one_does(tmp_path, child):
    def hold(say):
        with folder_lock(tmp_path, "training"):
            say()
            time.sleep(60)

    pid = child(hold)
    with pytest.raises(InUseError, match=f"process {pid} on"), folder_lock(tmp_path, "training"):
        pass
    kill(pid)
    with folder_lock(tmp_path, "training"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_workers_of_a_killed_process_do_not_hold_its_lock(tmp_path, child):
    workers = tmp_path / "workers"

    def hold(say):
        with folder_lock(tmp_path, "training"):
            if not (pid := os.fork()):
                time.sleep(60)
                os._exit(0)
            workers.write_text(str(pid))
            say()
            time.sleep(60)

    kill(child(hold))
    worker = int(workers.read_text())
    try:
        os.kill(worker, 0)
        with folder_lock(tmp_path, "training"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_who_waits_gets_it_when_the_holder_ends(tmp_path, child, capfd, monkeypatch):
    monkeypatch.setattr(locks, "_POLL", 0.01)

    def hold(say):
        with folder_lock(tmp_path, "training"):
            say()
            time.sleep(0.2)
        os._exit(0)

    pid = child(hold)
    with folder_lock(tmp_path, "training", wait=True):
        pass
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and f"process {pid} on" in said and "waiting for its end" in said


def test_a_lock_is_lent_to_a_child_which_outlives_its_parent(tmp_path, child, monkeypatch):
    """As `vistok eval` does with the trainings that it starts."""
    with folder_lock(tmp_path, "evaluation") as lock:

        def hold(say):
            os.environ.update(lent)
            with folder_lock(tmp_path, "training"):
                say()
                time.sleep(60)

        # A fork closes the descriptor, a command that is started with it keeps it: as that does.
        lent = {locks.LENT: str(os.dup(lock.file))}
        pid = child(hold)
        held = json.loads((tmp_path / ".lock").read_text())
        assert (held["pid"], held["purpose"]) == (pid, "training")
        lock.check()  # it is still this process's
    os.close(int(lent[locks.LENT]))


def test_the_wrong_descriptor_is_no_lent_lock(tmp_path, monkeypatch):
    with open(tmp_path / "file", "w") as other:
        monkeypatch.setenv(locks.LENT, str(other.fileno()))
        with folder_lock(tmp_path, "training"), pytest.raises(InUseError):
            with folder_lock(tmp_path, "training"):
                pass


# -- several machines, whose locks do not see each other -------------------------------------------


def test_another_machine_that_shows_life_keeps_its_lock(tmp_path, monkeypatch, fails, child):
    monkeypatch.setattr(locks, "_POLL", 0.01)
    held_by(tmp_path, machine="other", host="node7", pid=4)

    def beat(say):
        say()
        while True:
            time.sleep(0.02)
            os.utime(tmp_path / ".lock")

    child(beat)
    with fails(InUseError, "process 4 on node7"), folder_lock(tmp_path, "training"):
        pass


def test_another_machine_without_life_is_waited_for_and_then_gone(tmp_path, monkeypatch, capfd):
    for name, seconds in (("_POLL", 0.01), ("_BEAT", 0.05), ("_SILENCE", 0.2)):
        monkeypatch.setattr(locks, name, seconds)
    held_by(tmp_path, machine="other", host="node7", pid=4)
    with folder_lock(tmp_path, "training"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    said = capfd.readouterr().err
    assert "process 4 on node7" in said and "no sign of life" in said and ".lock is removed" in said


def test_a_holder_touches_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT", 0.01)
    with folder_lock(tmp_path, "training"):
        os.utime(tmp_path / ".lock", (1, 1))
        deadline = time.monotonic() + 10
        while os.stat(tmp_path / ".lock").st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_who_was_suspended_and_lost_its_lock_learns_it(tmp_path, fails):
    with folder_lock(tmp_path, "training") as lock:
        lock.check()
        facts = json.loads((tmp_path / ".lock").read_text())
        other = {**facts, "token": "other", "host": "node7", "pid": 4}
        (tmp_path / ".lock").write_text(json.dumps(other))
        with fails(InUseError, "taken over by process 4 on node7", "nothing more is written"):
            lock.check()
    assert json.loads((tmp_path / ".lock").read_text()) == other  # not ours to remove


def test_a_lock_that_somebody_removed_is_taken_again(tmp_path):
    with folder_lock(tmp_path, "training") as lock:
        (tmp_path / ".lock").unlink()
        lock.check()
        with pytest.raises(InUseError), folder_lock(tmp_path, "training"):
            pass


def test_a_disk_without_locks_asks_for_the_process(tmp_path, monkeypatch, child):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    pid = child(lambda say: say())
    held_by(tmp_path, pid=pid)
    with pytest.raises(InUseError, match=f"process {pid} on"), folder_lock(tmp_path, "training"):
        pass
    kill(pid)
    with folder_lock(tmp_path, "training"):
        pass


# -- files that others left there ------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b'{"pid": "x"}', b"[" * 9000])
def test_a_text_that_names_nobody_is_nobodys(tmp_path, text):
    (tmp_path / ".lock").write_bytes(text)
    with folder_lock(tmp_path, "training"):
        pass


def test_a_name_reaches_no_terminal_raw(tmp_path, monkeypatch, capfd):
    for name, seconds in (("_POLL", 0.01), ("_BEAT", 0.01), ("_SILENCE", 0.05)):
        monkeypatch.setattr(locks, name, seconds)
    held_by(tmp_path, machine="other", host="\x1b[31mred\nline", command="x" * 3000)
    with folder_lock(tmp_path, "training"):
        pass
    said = capfd.readouterr().err
    assert "\x1b" not in said and r"\x1b[31mred\nline" in said and len(said) < 1500


def test_links_and_pipes_in_its_place_are_refused(tmp_path, fails):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to("precious")
    with fails(UnwrittenError, r"\.lock"), folder_lock(tmp_path, "training"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with fails(InUseError, "not a file; remove it"), folder_lock(tmp_path, "training"):
        pass


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/vistok", "train", "quickstart", "data.path=https://me:pw@host"], None),
        (["/x/train/__main__.py", "quickstart", "steps=3"], "python -m train quickstart"),
    ],
)
def test_the_command_is_named_without_its_settings(tmp_path, monkeypatch, words, shown):
    monkeypatch.setattr(locks.sys, "argv", words)
    with folder_lock(tmp_path, "training"):
        held = json.loads((tmp_path / ".lock").read_text())
    assert held["command"] == (shown or "vistok train quickstart")
