"""How a command shows an error: the user's in one line, ours as a bug."""

import click
import pytest
from click.testing import CliRunner

from vistok.config import ConfigError, InputError, UserError
from vistok.config.errors import BUG, one_line_errors


def shown(error: Exception, monkeypatch) -> tuple[int, str]:
    monkeypatch.delenv("VISTOK_DEBUG", raising=False)

    @click.command()
    @one_line_errors
    def command():
        raise error

    result = CliRunner().invoke(command)
    return result.exit_code, result.output.strip()


def test_mistakes_of_the_user(monkeypatch):
    for kind in (UserError, ConfigError, InputError):
        assert shown(kind("length=99: expected 1..4"), monkeypatch) == (
            1,
            "error: length=99: expected 1..4",
        )
    assert issubclass(InputError, ValueError) and issubclass(ConfigError, ValueError)


def test_files_that_the_system_refuses(monkeypatch):
    missing = FileNotFoundError(2, "No such file or directory", "cat.png")
    assert shown(missing, monkeypatch) == (1, "error: cat.png: No such file or directory")
    assert shown(OSError(28, "No space left"), monkeypatch) == (1, "error: No space left")


def test_a_full_gpu(monkeypatch):
    import torch

    code, line = shown(torch.OutOfMemoryError("CUDA out of memory.\nTried"), monkeypatch)
    assert code == 1 and "lower the batch size" in line and "\n" not in line


def test_anything_else_is_a_bug_of_ours(monkeypatch):
    code, line = shown(RuntimeError("mat1 and mat2\nshapes"), monkeypatch)
    assert code == BUG and "\n" not in line
    assert line.startswith("internal error: RuntimeError: mat1 and mat2 shapes; this is a bug")
    assert "VISTOK_DEBUG=1" in line


def test_debugging_shows_the_traceback(monkeypatch):
    @click.command()
    @one_line_errors
    def command():
        raise ConfigError("a")

    monkeypatch.setenv("VISTOK_DEBUG", "1")
    with pytest.raises(ConfigError):
        CliRunner().invoke(command, catch_exceptions=False)


def test_wrong_use_stays_with_click(monkeypatch):
    code, line = shown(click.UsageError("no such option"), monkeypatch)
    assert code == 2 and "no such option" in line
