"""Weights and statistics that are named pipes are refused, and not waited for."""

import os
import signal

import pytest

from vistok.core.regular_files import IrregularFileError
from vistok.metrics import FeatureStats
from vistok.storage.foreign import read_file
from vistok.storage.weights import WeightsError, sha256


@pytest.fixture
def pipe(tmp_path):
    """pipe(name) -> its path. A test that waits for one fails."""

    def late(*_):
        raise AssertionError("waited for a pipe")

    def make(name: str):
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield make
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_pipes_are_no_weights(pipe, fails):
    for name in ("a.pt", "a.bin", "a.ckpt"):
        with fails(IrregularFileError, f"{name}: is a named pipe"):
            read_file(pipe(name))
    with fails(WeightsError, "no such weights file"):
        read_file(pipe("a.safetensors"))
    with fails(IrregularFileError, "b.pt: is a named pipe"):
        sha256(pipe("b.pt"))


def test_pipes_are_no_statistics(pipe, fails):
    with fails(ValueError, "a.npz: not saved feature statistics", "a named pipe"):
        FeatureStats.load(pipe("a.npz"))
