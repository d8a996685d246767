"""Plugins are recorded as names, never imported by a file, and asked for in one line everywhere."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.support.training import TINY
from vistok.cli import main
from vistok.config import ConfigError, load_plugins, read_yaml, to_yaml, validate
from vistok.config.errors import explain
from vistok.config.plugins import modules_of, plugin_words, take_plugins
from vistok.data.loading import workers
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.config import TrainConfig

PART = """
from typing import Literal
from vistok.config.registry import register
from vistok.quantizers.atoms.fsq import FSQ, FSQConfig


class MineConfig(FSQConfig):
    kind: Literal["mine"] = "mine"
    levels: tuple[int, ...] = (4, 4)


@register("quantizer", MineConfig)
class Mine(FSQ):
    def lookup(self, indices, keep=None):
        if self.vocab == (9,):
            raise KeyError("levels")
        return super().lookup(indices, keep)
"""
ADD = "add plugins=mine_of_a_test"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The module mine_of_a_test in the current folder, not loaded; forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    Path("mine_of_a_test.py").write_text(PART, encoding="utf-8")
    return "mine_of_a_test"


@pytest.fixture
def forget(monkeypatch):
    """Lose what is loaded, as in the next process."""
    from vistok.config import plugins, registry

    def lose(module: str) -> None:
        plugins._taken.remove(module)
        registry._ENTRIES["quantizer"].pop("mine")
        sys.modules.pop(module)

    return lose


@pytest.fixture
def model(mine, tree, forget):
    """A saved model with the user's own quantizer, whose module is not loaded any more."""
    load_plugins(mine)
    config = validate(TokenizerConfig, tree() | {"quantizer": {"kind": "mine"}})
    assert modules_of(config) == [mine]
    Tokenizer(config).save_pretrained("model")
    forget(mine)
    return "model"


def test_a_model_names_its_modules_and_imports_none(model, fails):
    told = json.loads(Path(model, "config.json").read_text("utf-8"))
    assert told["plugins"] == ["mine_of_a_test"]
    with fails(ConfigError, "model/config.json: it needs parts of your own", ADD, "in Python: pl"):
        Tokenizer.from_pretrained(model)
    assert "mine_of_a_test" not in sys.modules
    opened = Tokenizer.from_pretrained(model, plugins="mine_of_a_test")
    assert opened.config.quantizer.kind == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["info", "model"],
        ["cache", "model", "data.kind=photos"],
        ["try", "a.png", "--model", "model"],
        ["encode", "model", "a.png"],
        ["decode", "model", "a.vtk"],
        ["generate", "model", "model"],
        ["edit", "copy", "model", "a.png", "a.png", "--positions", "0"],
        ["frequencies", "model", "a"],
        ["eval", "model", "data.kind=photos"],
        ["eval", "speed", "model"],
        ["train", "jobs/preserve", "task.tokenizer=model", "--dry-run"],
    ],
    ids=lambda words: words[0] + words[1] * (words[0] == "eval"),
)
def test_every_command_says_what_to_add(model, words, monkeypatch):
    Image.new("RGB", (8, 8)).save("a.png")
    Path("a.vtk").write_bytes(b"")
    if words[0] == "generate":
        told = {"kind": "masked", "spec": {}, "tokenizer": {}, "plugins": ["mine_of_a_test"]}
        Path("generator").mkdir()
        Path("generator/config.json").write_text(json.dumps(told | {"kind": "mine"}))
        words = ["generate", "generator"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and ADD in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and "mine_of_a_test" not in sys.modules


def test_a_run_records_the_names_and_a_config_asks_for_them(mine, forget, fails):
    take_plugins([f"plugins={mine}"])
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["quantizer"] = {"kind": "mine"}
    config = validate(TrainConfig, tree)
    assert config.plugins == (mine,) and plugin_words() == [f"plugins={mine}"]
    Path("config.yaml").write_text(to_yaml(config), encoding="utf-8")
    again = validate(TrainConfig, read_yaml("config.yaml"))
    assert again == config
    forget(mine)
    with fails(ConfigError, "config.yaml: it needs parts of your own", ADD):
        validate(TrainConfig, read_yaml("config.yaml"), "config.yaml")
    result = CliRunner().invoke(main, ["train", "config.yaml"])
    assert result.exit_code == 1 and ADD in result.stderr and mine not in sys.modules
    workers.load_plugins([mine])  # as a spawned worker does
    loaded = validate(TrainConfig, read_yaml("config.yaml"))
    assert loaded.model_dump() == config.model_dump()


def test_names_that_are_no_modules_are_no_advice(model, fails):
    path = Path(model, "config.json")
    told = json.loads(path.read_text("utf-8"))
    for names in (["os; rm"], ["../x"], [3], ["a b"]):
        path.write_text(json.dumps(told | {"plugins": names}), encoding="utf-8")
        with fails(ConfigError, "plugins: got .*; expected a list of modules"):
            Tokenizer.from_pretrained(model)
    path.write_text(json.dumps(told | {"plugins": ["gone.to", "mine_of_a_test"]}))
    with fails(ConfigError, "add plugins=gone.to,mine_of_a_test"):
        Tokenizer.from_pretrained(model)
    # A part that moved to another module opens all the same.
    Path("mine_of_a_test.py").rename("moved_mine.py")
    assert Tokenizer.from_pretrained(model, plugins=["moved_mine"]).spec().vocab == (16,)


# -- errors in the user's own code -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n1 / 0", "mine_of_a_test.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine_of_a_test.py, line 1: SyntaxError: "),
        ("import no_such_thing", "mine_of_a_test.py, line 1: ModuleNotFoundError: No module name"),
        ("from vistok.quantizers import Nothing", "mine_of_a_test.py, line 1: ImportError: cannot"),
    ],
    ids=["zero", "syntax", "module", "name"],
)
def test_a_module_that_fails_names_its_line(mine, text, said, fails):
    Path("mine_of_a_test.py").write_text(text, encoding="utf-8")
    with fails(ConfigError, f"plugins: {said}", "while importing 'mine_of_a_test'"):
        load_plugins(mine)


def test_an_error_inside_a_part_is_not_a_bug_of_vistok(mine, tree):
    load_plugins(mine)
    config = tree() | {"quantizer": {"kind": "mine", "levels": [3, 3]}}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    tokens = tokenizer.encode(torch.rand(1, 3, 8, 8))
    with pytest.raises(KeyError) as caught:
        tokenizer.decode(tokens)
    line, code = explain(caught.value)
    assert line.startswith("error: mine_of_a_test.py, line 16 in lookup: KeyError: 'levels'")
    assert code == 1
    worker = RuntimeError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        f'last):\n  File "{Path("mine_of_a_test.py").absolute()}", line 9, in sample\n    x\n'
    )
    assert explain(worker)[0].startswith("error: mine_of_a_test.py, line 9 in sample: RuntimeErr")
    other, code = explain(TypeError("no line of the part"))
    assert code == 70 and "or of mine_of_a_test (`vistok test-part mine_of_a_test` tells)" in other


def test_names_that_python_has_already_and_paths(mine, fails):
    Path("json.py").write_text(PART, encoding="utf-8")
    with fails(ConfigError, "plugins=json: Python has another module .* rename json.py"):
        load_plugins("json")
    with fails(ConfigError, r"plugins=parts/mine.py: expected .* such as plugins=parts.mine$"):
        take_plugins(["plugins=parts/mine.py"])
    with fails(ConfigError, "cannot import 'nowhere_at_all'.* in the current folder"):
        take_plugins(["plugins=nowhere_at_all"])
    assert take_plugins([f"plugins={mine}, {mine}", "a=1"]) == ["a=1"]
