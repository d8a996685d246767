"""`vistok train` as a user types it: mistakes are one line each, before anything is built."""

from __future__ import annotations

import signal
import time

import pytest
from click.testing import CliRunner

from tests.support.processes import start
from tests.support.training import TINY
from vistok.train.__main__ import main


def fails(*args) -> str:
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit)
    text = result.stderr.strip()
    assert "\n" not in text and text.startswith("error: "), text
    return text


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("stepz=3", ["stepz", "'steps'"]),
        ("steps=many", ["steps", "'many'", "integer"]),
        ("steps=0", ["steps", "0", "greater than or equal to 1"]),
        ("task.tokenizer.quantizer.levls=[8]", ["task.tokenizer.quantizer.levls", "'levels'"]),
        ("task.kind=tokenzier", ["task.kind", "'tokenzier'", "'tokenizer'"]),
        ("task.tokenizer.decoder.kind=vitt", ["decoder.kind", "'vitt'", "vit"]),
        ("data.kind=fotos", ["data.kind", "'fotos'", "'photos'"]),
        ("warmup=99", ["warmup=99", "steps=12"]),
        ("accumulate=3", ["batch_size=8", "accumulate=3"]),
        ("resume=/nowhere", ["/nowhere", "no such checkpoint"]),
        ("nonsense", ["nonsense", "key.sub=value"]),
        ("plugins=no_such_module", ["plugins", "no_such_module"]),
    ],
)
def test_mistakes_name_path_value_and_remedy(write, tmp_path, override, wanted):
    text = fails(write(TINY), f"out={tmp_path}/run", override)
    for part in wanted:
        assert part in text
    if "resume" not in override:
        assert not (tmp_path / "run").exists()  # nothing was built


def test_a_missing_config_file_is_one_line():
    assert "no such config file" in fails("configs/nope.yaml")


def test_a_task_without_data_says_so(write, tmp_path):
    tree = {key: value for key, value in TINY.items() if key != "data"}
    assert "data: missing" in fails(write(tree), f"out={tmp_path}/run")


def test_a_generator_on_images_says_what_it_needs(write, tmp_path):
    tree = {**TINY, "task": {"kind": "generator"}}
    assert "cached tokens" in fails(write(tree), f"out={tmp_path}/run")


CLIPS = {**TINY["data"], "frames": 4}


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("task", "who"),
    [
        (TINY["task"], "this tokenizer"),
        ({"kind": "classifier"}, "a classifier"),
    ],
    ids=["tokenizer", "classifier"],
)
def test_clips_for_a_task_of_images_are_refused_at_once(write, tmp_path, task, who, dry):
    text = fails(write({**TINY, "task": task, "data": CLIPS}), f"out={tmp_path}/run", *dry)
    assert f"data: gives clips of 4 frames of 32x32 pixels; {who} takes images" in text
    assert not list(tmp_path.glob("run/*"))  # no work was begun


def test_clips_for_a_generator_are_no_tokens(write, tmp_path):
    tree = {**TINY, "task": {"kind": "generator"}, "data": CLIPS}
    assert "cached tokens" in fails(write(tree), f"out={tmp_path}/run")


def test_length_dropout_needs_a_decoder_that_can(write, tmp_path):
    text = fails(write(TINY), f"out={tmp_path}/run", "task.tokenizer.decoder.missing=refuse")
    assert "nested_dropout" in text and "decoder.missing" in text


def test_an_empty_folder_is_one_line(write, tmp_path):
    (tmp_path / "images").mkdir()
    tree = {**TINY, "data": {"kind": "folder", "path": str(tmp_path / "images"), "size": 32}}
    assert str(tmp_path / "images") in fails(write(tree), f"out={tmp_path}/run")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_saves_and_exits(write, tmp_path, number, code):
    folder = tmp_path / "run"
    process = start("train", write(TINY), f"out={folder}", "steps=100000", "save_every=0")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and path.stat().st_size:
            break
        time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(60).returncode == code
    assert list((folder / "checkpoints").glob("step_*/manifest.json"))
