"""Workers end by themselves when the process that reads their batches is gone."""

import os
import subprocess
import sys

import pytest

from tests.support.training import ROOT


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_of_a_killed_process_end(method):
    """They all hold the output that is read here: it ends when the last one has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.orphans", method],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "2\n"
    process.kill()
    try:
        assert process.communicate(timeout=20)[0] == ""
    except subprocess.TimeoutExpired:
        pytest.fail("workers outlived the process that started them")
