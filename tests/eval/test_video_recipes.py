"""Every tiny recipe of a video tokenizer through the evaluation and the commands, untrained."""

from __future__ import annotations

import av
import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.support.films import film
from tests.support.recipes import TINY, read_config
from vistok.cli import main
from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")

VIDEO = [name for name, path in TINY.items() if read_config(path).task.tokenizer.frames]
MEASURED = ("rFVD", "rFID-frame", "PSNR", "SSIM")


@pytest.fixture(params=VIDEO)
def run(request, tmp_path, monkeypatch):
    """(the tokenizer of a recipe, untrained; the number of its frames); its run is `run`."""
    monkeypatch.chdir(tmp_path)
    config = read_config(TINY[request.param])
    torch.manual_seed(0)
    tokenizer = Tokenizer(config.task.tokenizer).eval()
    tokenizer.save_pretrained("run/model")
    frames, size = tokenizer.shape.sides[:2]
    data = {"kind": "photos", "size": size, "frames": frames, "val_count": 4}
    text = yaml.safe_dump({"name": request.param, "data": data})
    (tmp_path / "run/config.yaml").write_text(text, encoding="utf-8")
    return tokenizer, frames


def call(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def shown(path) -> tuple[int, float]:
    """Frames and frame rate of a video file."""
    with av.open(str(path)) as file:
        return len(list(file.decode(video=0))), float(file.streams.video[0].average_rate)


def test_it_is_evaluated(run):
    tokenizer, frames = run
    options = {"perceptual": (), "batch": 4, "pfid": {"mode": "quick"}}
    results = evaluate(["run"], EvalConfig(**options))
    longest = tokenizer.spec().eval_lengths[-1]
    for metric in MEASURED:
        rows = results.find(metric)
        assert [row.length for row in rows] == list(tokenizer.spec().eval_lengths), metric
        assert rows[-1].length == longest and rows[-1].size == tokenizer.shape.sides
    assert all(row.count == 4 for row in results.find("rFVD"))
    assert all(row.count == 4 * frames for row in results.find("rFID-frame"))
    measured = {row.protocol for row in results.rows}
    skipped = {one["protocol"] for one in results.facts["skipped"]}
    assert {"rfid", "rfvd", "over_time"} <= measured
    assert ("pfid" in measured) == bool(tokenizer.spec().vocab)  # else they are continuous
    assert not skipped & measured


def test_the_commands_take_it(run, tmp_path):
    tokenizer, frames = run
    text = call("info", "run/model")
    assert "clip" in text and tokenizer.config.encoder.kind in text
    long = 2 * frames + 1
    # The frame rate at which a sample has as many frames as its config says.
    rate = round(tokenizer.encoder.anchor or 10)
    film(tmp_path / "film.mp4", long, size=(40, 48), rate=rate)
    if not tokenizer.spec().vocab:
        done = CliRunner().invoke(main, ["encode", "run/model", "film.mp4"])
        assert done.exit_code == 1 and "continuous tokens have no bytes" in done.output
        return
    if tokenizer.config.chunks is None:  # else a video is encoded to its end
        call("encode", "run/model", "film.mp4")
        call("decode", "run/model", "film.vtk", "--out", "short.mp4")
        assert shown("short.mp4") == (frames, rate)
    whole = ["encode", "run/model", "film.mp4", "--overwrite", "--pad", "repeat"]
    for windows in (["--whole"], ["--overlap", "1"]):
        call(*whole, *windows)
        call("decode", "run/model", "film.vtk", "--out", "long.mp4", "--overwrite")
        assert shown("long.mp4") == (long, rate)
