"""Freed buffers stay with the process: the next large buffer costs no fresh pages."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
from vistok.train.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("other"); sys.exit()
import torch
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill(times):
    for _ in range(times):
        torch.ones(16 * 2**20)  # 64 MB
fill(12)  # aligned blocks wander until their slivers are used up
before = faults()
fill(5)
print((faults() - before) * resource.getpagesize())
"""


@pytest.mark.slow
def test_large_buffers_are_used_again():
    def fresh(how: str) -> str:
        command = [sys.executable, "-c", FAULTS, how]
        root = Path(__file__).parents[2]
        return subprocess.run(
            command, cwd=root, check=True, capture_output=True, text=True, timeout=120
        ).stdout.strip()

    found = fresh("keep")
    if found == "other":
        pytest.skip("the C library is not glibc")
    assert int(found) < 2**22  # of 320 MB that were written
    assert int(fresh("leave")) > 2**28
