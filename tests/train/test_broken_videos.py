"""Every file of the manifest of broken videos gets what it asks: in training, `vistok encode` and
`vistok eval`."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
from click.testing import CliRunner

from tests.cli.test_cli import call, main
from tests.support.films import film
from tests.support.training import TINY, lines
from vistok.eval.__main__ import evaluate

UNREADABLE = {
    "truncated_moov_last.mp4": "cannot be opened as a video",
    "no_video_stream.mp4": "has no video stream, only audio",
}


@pytest.fixture
def folder(tmp_path, broken):
    """Four good films and the broken videos."""
    files = json.loads((broken / "manifest.json").read_text())["files"]
    names = [one["file"] for one in files if one["kind"] == "video"]
    place = tmp_path / "films"
    for number in range(4):
        film(place / f"good{number}.mp4", 24)
    for name in names:
        shutil.copy(broken / name, place / name)
    return place


def tree(folder):
    found = copy.deepcopy(TINY)
    tokenizer = found["task"]["tokenizer"]
    tokenizer |= {"image_size": 16, "frames": 4}
    for part in ("encoder", "decoder"):
        tokenizer[part]["patches"] = {"size": 8, "frames": 2}
    data = {"kind": "video", "path": str(folder), "size": 16, "frames": 4, "decoder": "pyav"}
    return {**found, "data": {**data, "val_path": str(folder)}, "max_bad_share": 1.0}


def test_training_encoding_and_evaluation(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(tree(folder), "run", steps=6, save_every=0)
    assert len(lines(done)) == 6
    named = {row["name"]: row["reason"] for row in map(json.loads, open(done / "quarantine.jsonl"))}
    expected = {**UNREADABLE, "one_frame.mp4": "1 frames at 25 fps found, 4 at stride 1 wanted"}
    assert set(named) == set(expected)
    assert all(expected[name] in reason for name, reason in named.items())
    model = str(done / "model")

    # `vistok encode` names those and writes the others, the whole of them up to the damage.
    result = CliRunner().invoke(main, ["encode", model, str(folder), "--out", "codes"])
    assert result.exit_code == 1 and "3 of 9 files failed" in result.output
    for name, reason in {**UNREADABLE, "one_frame.mp4": "1 frames; this tokenizer takes"}.items():
        assert any(name in line and reason in line for line in result.output.splitlines()), name
    assert len(list((tmp_path / "codes").glob("*.vtk"))) == 6
    said = call("encode", model, f"{folder}/truncated_midstream.mp4", "--pad", "repeat")
    assert "22 frames in 6 windows" in said and "cannot be decoded" in said
    assert "1 frames in 1 window" in call(
        "encode", model, f"{folder}/one_frame.mp4", "--pad", "repeat"
    )
    assert "20 frames" in call("encode", model, f"{folder}/odd_size.mp4", "--pad", "repeat")

    # `vistok eval` stops: a number over fewer clips than it claims would be worthless.
    result = CliRunner().invoke(evaluate, [str(done), "protocols=rfid"])
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert any(f"{name}: " in result.output for name in expected)
