"""One process at a time in a folder: a lock that names its holder and ends with it.

The lock is the file `.lock` in the folder. The system holds it (flock) for as long as the process
lives, so a killed process leaves nothing that must be cleaned up; the file's text only names the
holder. A disk that several machines share may keep such locks to each machine. The holder therefore
touches the file every few seconds, and a process on another machine watches for that before it
takes the holder to be gone.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import socket
import stat
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vistok.config.errors import UserError
from vistok.core.text import printable
from vistok.storage.files import unwritten

LENT = "VISTOK_LOCK"  # environment variable: the descriptor of a lock that a parent process lends
_NAME = ".lock"
_BEAT = 10.0  # seconds between two signs of life
_SILENCE = 180.0  # seconds without one after which a holder on another machine is gone
_POLL = 0.5  # seconds between two looks
_LONGEST = 4096  # bytes of a lock's text that are read
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class InUseError(UserError, RuntimeError):
    """A folder that another process is filling; the message names the process."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as its file says."""

    pid: int
    host: str
    machine: str
    """Identity of the machine since it was started; equal in all containers on it."""
    command: str
    purpose: str
    since: str
    token: str
    """Random text that tells this holding from every other one."""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        what = f"{self.command}; {self.purpose}"
        return f"process {self.pid} on {self.host} ({what}) since {self.since}"


@contextmanager
def folder_lock(folder: str | Path, purpose: str, *, wait: bool = False) -> Iterator[FolderLock]:
    """Hold the lock of an existing folder while the block runs.

    Args:
        purpose: shown to whom it keeps out, e.g. "training".
        wait: wait for the end of another holder, and say so on stderr.
    Raises InUseError, which names the other process, or UnwrittenError if the folder cannot be
    written.
    """
    lock = FolderLock(Path(folder), purpose)
    lock.acquire(wait)
    try:
        yield lock
    finally:
        lock.release()


class FolderLock:
    """The lock of one folder; see `folder_lock`."""

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder, self.path = folder, folder / _NAME
        self.me = Holder(
            os.getpid(),
            socket.gethostname(),
            _machine(),
            _command(),
            purpose,
            time.strftime("%Y-%m-%d %H:%M:%S %z"),
            uuid.uuid4().hex,
        )
        self.file = -1
        self._is_lent = False
        self._ended = threading.Event()

    def acquire(self, wait: bool = False) -> None:
        """Take the lock, or that which the parent process lends."""
        if not self._take_lent():
            self._take(wait)
        _close_in_forks()
        _held.add(self)
        threading.Thread(target=self._show_life, daemon=True).start()

    def release(self) -> None:
        """Give the lock back; a lent one stays with the process that lends it."""
        self._ended.set()
        _held.discard(self)
        if self._is_lent or self.file < 0:
            return
        if self._is_ours():
            with suppress(OSError):
                self.path.unlink()
        os.close(self.file)
        self.file = -1

    def lend(self) -> dict[str, str]:
        """Environment for a child process that is to work under this lock.

        It must be given the descriptor `file` too; it then holds the lock for as long as it lives,
        even if this process is killed.
        """
        return {LENT: str(self.file)}

    def check(self) -> None:
        """InUseError if the folder is another process's now: another machine saw no sign of life of
        this one (it was suspended), or somebody removed the file."""
        if self._is_ours():
            return
        other, before = _read(self.path), self.file
        if other is None and (other := self._try()) is None:
            os.close(before)
            return
        raise InUseError(
            f"{self.folder}: taken over by {other} while this process gave no sign of life; "
            "nothing more is written here"
        )

    def _take(self, wait: bool) -> None:
        told = False
        while (other := self._try()) is not None:
            if not wait:
                raise InUseError(
                    f"{self.folder}: in use by {other}; wait for its end, stop it, or use another "
                    "folder"
                )
            if not told:
                print(f"{self.folder}: in use by {other}; waiting for its end", file=sys.stderr)
                told = True
            time.sleep(_POLL)

    def _try(self) -> Holder | None:
        """Take the lock; its holder if it is somebody else's."""
        while True:
            file = _open(self.path)
            try:
                other = self._obstacle(file)
                if other is not None:
                    return other
                if _is_at(file, self.path):  # else its last holder has just removed it
                    self._write(file)
                    self.file, file = file, -1
                    return None
            except OSError as error:
                raise unwritten(self.path, error) from None
            finally:
                if file >= 0:
                    os.close(file)

    def _obstacle(self, file: int) -> Holder | None:
        """The process that holds the lock of an open file; None = nobody does, and it is ours."""
        locked = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._named(file)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            locked = False
        other = _parse(os.pread(file, _LONGEST, 0))
        if other is None or other.token == self.me.token:
            return None
        if other.machine == self.me.machine:
            return None if locked or not _runs(other.pid) else other
        return other if self._shows_life(other) else None

    def _named(self, file: int) -> Holder:
        """The holder of a lock that this process did not get; it may just be writing its name."""
        for _ in range(10):
            if (other := _parse(os.pread(file, _LONGEST, 0))) is not None:
                return other
            time.sleep(0.02)
        return Holder(0, "", "", "", "", "", "")

    def _shows_life(self, other: Holder) -> bool:
        """True as soon as a holder on another machine touches its file; False if it never does."""
        first, since, told = _touched(self.path), time.monotonic(), False
        while time.monotonic() - since < _SILENCE:
            if (now := _touched(self.path)) != first:
                return now is not None
            if not told and time.monotonic() - since > _BEAT:
                print(
                    f"{self.folder}: was in use by {other}, which gives no sign of life; taken "
                    f"over in {_SILENCE - _BEAT:.0f} s unless it does (if it is gone for certain: "
                    f"at once when {self.path} is removed)",
                    file=sys.stderr,
                )
                told = True
            time.sleep(min(_POLL, _BEAT))
        return False

    def _take_lent(self) -> bool:
        """Work under the lock that the parent process lends, if it lends this one."""
        file = os.environ.get(LENT, "")
        if not file.isdecimal() or not _is_at(int(file), self.path):
            return False
        del os.environ[LENT]
        self.file, self._is_lent = int(file), True
        before = _parse(os.pread(self.file, _LONGEST, 0))
        if before is not None:  # the same holding, by another process
            self.me = Holder(**{**asdict(self.me), "token": before.token})
        self._write(self.file)
        return True

    def _is_ours(self) -> bool:
        found = _read(self.path)
        return found is not None and found.token == self.me.token

    def _write(self, file: int) -> None:
        text = json.dumps(asdict(self.me), indent=1) + "\n"
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
        os.fsync(file)

    def _show_life(self) -> None:
        while not self._ended.wait(_BEAT):
            with suppress(OSError):
                os.utime(self.file)


def _open(path: Path) -> int:
    """The lock's file, made if need be. Links are not followed: the file is written."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise unwritten(path, error) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InUseError(f"{path}: not a file; remove it, and start the same command again")
    return file


def _is_at(file: int, path: Path) -> bool:
    """True if an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _read(path: Path) -> Holder | None:
    """The holder that a lock's file names; None = no file, or none that names one."""
    try:
        with _opened(path) as file:
            return _parse(os.pread(file, _LONGEST, 0))
    except OSError:
        return None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a lock's file, to read; OSError for a link."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def _parse(text: bytes) -> Holder | None:
    """A lock's text; it may have come from anywhere and is shown on terminals."""
    try:
        facts = json.loads(text)
        pid = facts.pop("pid")
        plain = {name: printable(value)[:200] for name, value in facts.items()}
        names = {field.name for field in fields(Holder)} - {"pid"}
        return Holder(pid, **plain) if type(pid) is int and set(plain) == names else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _touched(path: Path) -> int | None:
    """Time of the last sign of life; opened, since network disks refresh what they know then."""
    try:
        with _opened(path) as file:
            return os.fstat(file).st_mtime_ns
    except OSError:
        return None


def _runs(pid: int) -> bool:
    """True if a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _machine() -> str:
    """Identity of this machine since its start, where the system gives one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"


def _command() -> str:
    """The command of this process without its settings, which may hold what others must not see."""
    program, *words = sys.argv or [""]
    path = Path(program)
    name = f"python -m {path.parent.name}" if path.name == "__main__.py" else path.name
    return " ".join([name, *(word for word in words if "=" not in word)])[:120]


@functools.cache
def _close_in_forks() -> None:
    """Forked processes (loader workers) close the locks: they must end with the process that holds
    them, and workers may outlive it."""
    os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    for lock in list(_held):
        with suppress(OSError):
            os.close(lock.file)
    _held.clear()
