"""`task.init`: a path or more, parts without tensors, and parts that do not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from tests.support.training import TINY
from vistok.config import ConfigError, validate
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig
from vistok.train.tasks.tokenizer import TokenizerTask, TokenizerTaskConfig

VQ = {"kind": "vq", "codebook_size": 16, "dim": 2}  # of FSQ's width


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, str]:
    """Folders of a tokenizer with FSQ, which has no tensors, and of one with VQ."""
    folder = tmp_path_factory.mktemp("saved")
    for name, quantizer in (("fsq", {"kind": "fsq", "levels": [5, 5]}), ("vq", VQ)):
        task = validate(TokenizerTaskConfig, task_of(quantizer=quantizer))
        torch.manual_seed(1)
        Tokenizer(task.tokenizer).save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("fsq", "vq")}


def task_of(init=None, quantizer=None) -> dict:
    tree = copy.deepcopy(TINY["task"])
    tree["tokenizer"]["quantizer"] = quantizer or tree["tokenizer"]["quantizer"]
    return tree if init is None else tree | {"init": init}


def started(init, quantizer=None) -> TokenizerTask:
    torch.manual_seed(2)
    return TokenizerTask(validate(TokenizerTaskConfig, task_of(init, quantizer)), None)


def equal(task: TokenizerTask, folder: str, part: str) -> bool:
    state, saved = task.tokenizer.state_dict(), load_file(f"{folder}/model.safetensors")
    names = [name for name in saved if name.startswith(part)]
    assert names
    return all(torch.equal(state[name], saved[name]) for name in names)


@pytest.mark.parametrize("form", ["path", "list of paths", "mapping", "list"])
def test_a_string_is_a_path(saved, form):
    path = saved["fsq"]
    forms = {
        "path": path,
        "list of paths": [path],
        "mapping": {"path": path},
        "list": [{"path": path}],
    }
    task = started(forms[form])
    assert equal(task, path, "encoder.") and equal(task, path, "decoder.")


def test_a_part_without_tensors_is_left_out_and_said(saved):
    line = started(saved["fsq"]).facts().lines["init 1"]
    assert line == (
        f"encoder, decoder from {saved['fsq']}; quantizer holds no tensors, nothing to take"
    )
    task = started([saved["vq"]], VQ)
    assert task.facts().lines["init 1"] == f"encoder, quantizer, decoder from {saved['vq']}"
    assert equal(task, saved["vq"], "quantizer.")


@pytest.mark.parametrize(
    ("source", "quantizer", "words"),
    [
        ("vq", None, ["quantizer", "does not fit", "has no place here", "in `parts`"]),
        ("fsq", VQ, ["quantizer", "does not fit", "it lacks"]),
    ],
)
def test_another_quantizer_is_an_error_not_a_part_left_out(saved, fails, source, quantizer, words):
    with fails(ConfigError, f"task.init: quantizer of {saved[source]}", *words):
        started(saved[source], quantizer)
    task = started({"path": saved[source], "parts": ["encoder"]}, quantizer)
    assert equal(task, saved[source], "encoder.") and not equal(task, saved[source], "decoder.")


def test_nothing_to_take_is_an_error(saved, fails):
    with fails(ConfigError, "task.init: quantizer of", "holds no tensors", "encoder and decoder"):
        started({"path": saved["fsq"], "parts": ["quantizer"]})
    with fails(ConfigError, "task.init", "nothing would be taken"):
        started({"path": saved["fsq"], "parts": []})


def test_names_of_no_part_are_named(saved, fails):
    with fails(ConfigError, "task.init: 'encodr' names no part", "encoder, decoder"):
        started({"path": saved["fsq"], "parts": ["encodr"]})


def test_a_missing_path_is_one_line(fails, tmp_path):
    with fails(ConfigError, "task.init", str(tmp_path / "nowhere")):
        started(str(tmp_path / "nowhere"))


def test_the_command_takes_it_as_it_is_typed():
    tree = {**TINY, "task": task_of("runs/first")}
    assert validate(TrainConfig, tree).task.init[0].path == "runs/first"
