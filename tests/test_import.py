"""`import vistok` does no work: no torch, no network, no git, in less than three seconds."""

import subprocess
import sys
import time

import pytest

import vistok

GUARDED = """
import builtins, os, socket, subprocess, sys

def refuse(*args, **kwargs):
    raise SystemExit(f"import vistok started something: {args}")

socket.socket.__init__ = socket.create_connection = refuse
subprocess.Popen.__init__ = os.system = os.posix_spawn = refuse
import vistok

heavy = {"torch", "torchvision", "numpy", "pydantic", "huggingface_hub", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert "Tokenizer" in dir(vistok) and vistok.__version__
"""


def test_import_is_light_and_quiet():
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == ""
    assert time.monotonic() - start < 3


def test_names_are_loaded_on_first_use():
    for name in vistok.__all__:
        assert getattr(vistok, name) is not None
    from vistok.tokenizer import Tokenizer

    assert vistok.Tokenizer is Tokenizer


def test_unknown_names_say_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'Tokeniser'; it has .*Tokenizer"):
        _ = vistok.Tokeniser
