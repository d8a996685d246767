"""Training on a stream through the command line: a resumed run equals one that never stopped."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.support.training import TINY, command, lines


@pytest.fixture
def tree(tmp_path):
    """A tiny run on four tar shards of 6..9 images, one of them broken."""
    rng = np.random.default_rng(0)
    for shard in range(4):
        with tarfile.open(tmp_path / f"s{shard}.tar", "w") as tar:
            for key in range(6 + shard):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "png")
                content = b"broken" if (shard, key) == (1, 2) else file.getvalue()
                info = tarfile.TarInfo(f"{shard}-{key}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (tmp_path / "val").mkdir()
    shutil.copy(tmp_path / "s0.tar", tmp_path / "val/s.tar")
    data = {"kind": "webdataset", "size": 32, "train": f"{tmp_path}/s{{0..3}}.tar", "shuffle": 5}
    return {**TINY, "max_bad_share": 1.0, "data": {**data, "val": f"{tmp_path}/val/*.tar"}}


def stop_after(folder, name, step):
    """A copy of a run of 12 steps as it was after `step`: what a kill leaves."""
    copy = folder.parent / name
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "model")
    for path in (copy / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
    return copy


def files(folder):
    names = ("tokenizer", "ema.tokenizer", "optimizer.tokenizer")
    place = folder / "checkpoints/step_00000012"
    return {name: (place / f"{name}.safetensors").read_bytes() for name in names}


def state(folder, step=12):
    return json.loads((folder / f"checkpoints/step_{step:08d}/state.json").read_text())


@pytest.mark.slow
def test_a_resumed_run_equals_the_undisturbed_one(tmp_path, tree, write):
    path = write(tree)
    whole = tmp_path / "whole"
    done = command(path, f"out={whole}", "data.lanes=2")
    assert done.returncode == 0, done.stderr
    quarantine = (whole / "quarantine.jsonl").read_text()
    assert "s1.tar/1-2" in quarantine and len(quarantine.splitlines()) == 1
    stopped = stop_after(whole, "stopped", step=4)  # an epoch of 29 ends behind it
    done = command(path, f"out={stopped}", "data.lanes=2", "workers=2")
    assert done.returncode == 0, done.stderr
    assert "step_00000004" in done.stdout and len(lines(stopped)) == 12
    assert files(stopped) == files(whole)
    assert state(stopped)["stream"] == state(whole)["stream"]
    model = "model/model.safetensors"
    assert (stopped / model).read_bytes() == (whole / model).read_bytes()


def test_a_resumed_run_equals_the_undisturbed_one_from_step_8(run, tree):
    tree["data"]["lanes"] = 2
    whole = run(tree, "whole")
    stopped = stop_after(whole, "stopped", step=8)
    run(tree, "stopped")
    assert files(stopped) == files(whole)


def test_lanes_of_the_first_start_are_kept(run, tree, fails):
    folder = run(tree, workers=2, steps=4)
    assert state(folder, 4)["stream"]["lanes"] == 2
    assert set(state(folder, 4)["stream"]["positions"]) == {"0", "1"}
    run(tree, workers=0, steps=8)
    assert state(folder, 8)["stream"]["lanes"] == 2
    with fails(ValueError, "2 lanes do not split over 1 processes x 3 workers", "workers=1 or 2"):
        run(tree, workers=3)


def test_a_cache_reads_a_stream_by_index(run, tree):
    model = run(tree, steps=1, warmup=0)
    task = {"kind": "cache", "tokenizer": str(model)}
    streamed = {**tree["data"], "streaming": True, "train": tree["data"]["val"]}
    by_index = {**streamed, "streaming": False}
    metas = [
        json.loads(
            (run({**tree, "task": task, "data": data}, name) / "train/meta.json").read_text()
        )
        for name, data in (("a", streamed), ("b", by_index))
    ]
    assert metas[0] == metas[1] and metas[0]["written"] == metas[0]["count"]


@pytest.mark.slow
def test_two_processes_read_the_batches_of_one(tmp_path, tree, write):
    path = write({**tree, "steps": 8})
    for processes in (1, 2):
        done = command(path, f"out={tmp_path}/{processes}", "data.lanes=2", processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (state(tmp_path / name, 8) for name in "12")
    assert (one["world"], two["world"]) == (1, 2)
    assert one["stream"] == two["stream"] and len(one["stream"]["positions"]) == 2
    for a, b in zip(lines(tmp_path / "1"), lines(tmp_path / "2"), strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5, a["step"]
