"""`vistok train` as a user types it: mistakes are one line each, before anything is built."""

from __future__ import annotations

import signal
import time

import pytest
from click.testing import CliRunner

from tests.support.processes import start
from tests.support.training import TINY, forget_accelerate
from vistok.train.__main__ import main


def fails(*args) -> str:
    forget_accelerate()
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
        ("steps=many", ["steps", "'many'", "a whole number"]),
        ("steps=0", ["steps", "0", "a whole number of 1 or more"]),
        ("task.tokenizer.quantizer.levls=[8]", ["task.tokenizer.quantizer.levls", "'levels'"]),
        ("task.kind=tokenzier", ["task.kind", "'tokenzier'", "'tokenizer'"]),
        ("task.tokenizer.decoder.kind=vitt", ["decoder.kind", "'vitt'", "vit"]),
        ("data.kind=fotos", ["data.kind", "'fotos'", "'photos'"]),
        ("warmup=99", ["warmup=99", "steps=12"]),
        ("accumulate=3", ["batch_size=8", "accumulate=3"]),
        ("batch_size=0", ["batch_size", "0", "of 1 or more"]),
        ("batch_size=1000000000000", ["batch_size", "16,777,216"]),
        ("seed=-1", ["seed", "-1", "of 0 or more"]),
        ("seed=4294967296", ["seed", "below 4,294,967,296"]),
        ("workers=100000", ["workers", "to 4,096"]),
        ("name=''", ["name", "text of 1 to"]),
        ("out=''", ["out", "not empty"]),
        ("clip=.inf", ["clip", "inf", "finite"]),
        ("task.losses=[]", ["task.losses: got []", "nothing to learn", "{kind: reconstruction}"]),
        ("task.lr={encoder: -1}", ["task.lr.encoder", "a number of 0 or more"]),
        ("task.lr={encoder: .inf}", ["task.lr.encoder", "finite"]),
        ("optimizer.lr=.inf", ["optimizer.lr", "inf", "finite"]),
        ("optimizer.lr=.nan", ["optimizer.lr", "nan", "finite"]),
        ("optimizer.eps=0", ["optimizer.eps", "a number above 0"]),
        ("optimizer.betas=[0.9,1.0]", ["optimizer.betas.1", "below 1"]),
        ("optimizer.betas=[0.9]", ["optimizer.betas", "a list of 2"]),
        ("optimizer={kind: sgd, momentum: 0}", ["momentum=0", "nesterov=false"]),
        ("optimizer={kind: sgd, momentum: -1}", ["optimizer.momentum", "0 or more"]),
        ("optimizer={kind: muon, momentum: 1}", ["optimizer.momentum", "below 1"]),
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


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["train", "dry"])
@pytest.mark.parametrize(
    ("data", "found", "remedy"),
    [
        ({"kind": "photos", "size": 64}, "images of 64x64 pixels", "data.size=32"),
        ({"kind": "folder", "path": "nowhere", "size": 64}, "images of 64x64", "data.size=32"),
        ({"kind": "parquet", "train": "no.parquet", "size": [32, 64]}, "32x64", "data.size=32"),
        ({"kind": "webdataset", "train": "no.tar", "size": 16}, "images of 16x16", "data.size=32"),
        (
            {"kind": "video", "path": "nowhere", "size": 32, "frames": 8},
            "clips of 8 frames of 32x32",
            "data.frames=null",
        ),
    ],
    ids=["photos", "folder", "parquet", "webdataset", "video"],
)
def test_data_of_another_size_are_refused_though_they_are_not_here(
    write, tmp_path, data, found, remedy, dry
):
    text = fails(write({**TINY, "data": data}), f"out={tmp_path}/run", *dry)
    assert found in text and "this tokenizer takes images of 32x32 pixels" in text
    assert f"set {remedy}" in text
    assert not (tmp_path / "run").exists()


def test_the_line_of_the_readme_with_another_size(tmp_path):
    data = "data={kind: folder, path: my/images, val_share: 0.1, size: 64}"
    for dry in ([], ["--dry-run"]):
        text = fails("quickstart", "name=mine", f"out={tmp_path}/run", data, *dry)
        assert "data: gives images of 64x64 pixels; this tokenizer takes images of 32x32" in text


def test_frames_for_a_tokenizer_of_clips(tmp_path):
    data = "data={kind: video, path: my/clips, val_share: 0.1, size: 32, frames: 5}"
    text = fails("tiny/video_vit", f"out={tmp_path}/run", data, "--dry-run")
    assert "data: gives clips of 5 frames" in text and "set data.frames=" in text


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
