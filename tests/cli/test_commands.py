"""The table of commands: all of them are there, and the overview needs none of them."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from vistok.cli import COMMANDS, main
from vistok.config.errors import UserError

NAMES = [name for rows in COMMANDS.values() for name, _, _ in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_opens_and_fits_the_overview(name):
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    overview = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    (line,) = [line for line in overview.splitlines() if line.startswith(f"  {name} ")]
    assert line.endswith(main.sentences[name]) and len(line) <= 80


def test_a_wrong_command_says_the_nearest():
    result = CliRunner().invoke(main, ["encod", "a.png"])
    assert result.exit_code == 2 and "did you mean 'encode'" in result.stderr


def test_the_overview_imports_neither_torch_nor_a_command():
    code = (
        "import sys; from vistok.cli import main; main(['--help'], standalone_mode=False); "
        "print([n for n in ('torch', 'pydantic', 'vistok.cli.codes') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")  # a process of its own: nothing is imported before


@pytest.mark.parametrize("words", [["-q"], ["--verbosity", "quiet"]])
def test_a_quiet_command_prints_its_result_alone(words, make_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_VERBOSITY", "normal")  # put back after the test
    model, image = tmp_path / "model", tmp_path / "image.png"
    make_tokenizer().save_pretrained(model)
    Image.new("RGB", (30, 20), (250, 10, 90)).save(image)
    encode = ["encode", str(model), str(image), "--out"]
    assert "image.vtk" in CliRunner().invoke(main, [*encode, str(tmp_path / "said")]).output
    done = CliRunner().invoke(main, [*words, *encode, str(tmp_path / "a")])
    assert (done.exit_code, done.output) == (0, "")
    done = CliRunner().invoke(main, [*encode, str(tmp_path / "b"), *words])
    assert (done.exit_code, done.output) == (0, "")
    assert "tokens/image" in CliRunner().invoke(main, ["info", str(model), *words]).output


def test_debugging_raises_errors_with_their_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_VERBOSITY", "normal")
    monkeypatch.setenv("VISTOK_DEBUG", "")
    words = ["info", str(tmp_path / "nowhere")]
    assert CliRunner().invoke(main, words).exit_code == 1
    assert isinstance(CliRunner().invoke(main, [*words, "-v"]).exception, UserError)
