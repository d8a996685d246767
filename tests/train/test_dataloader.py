"""Shared memory that is too small ends a run before its first step, in one line."""

from types import SimpleNamespace

from tests.support.training import TINY, lines
from vistok.data import DataError
from vistok.data.loading import shared_memory


def test_a_run_that_needs_more_shared_memory_than_there_is(run, monkeypatch, fails, tmp_path):
    # A training batch of 8, one of 64 that validates, four of each, of 32x32 pixels.
    needed = 4 * (8 + 64) * 3 * 32 * 32
    place = SimpleNamespace(f_bavail=needed - 1, f_frsize=1)
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: place)
    with fails(DataError, "^/dev/shm: 0.8 MB", "workers=1 need 0.8 MB", "workers=0", "--shm-size"):
        run(TINY, workers=1, steps=3)
    assert not lines(tmp_path / "run") and not (tmp_path / "run" / "model").exists()
