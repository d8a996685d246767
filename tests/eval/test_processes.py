"""torchrun ... -m eval: every image once, the numbers of one process.

Two processes are started by torchrun; four (and those that fail) are forked from this one, since
importing torch takes each of them longer than the work.
"""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from vistok.eval.__main__ import evaluate
from vistok.eval.launch import process_group
from vistok.eval.results.rows import Results

ROOT = Path(__file__).parents[2]
IMAGES = 23  # splits over no number of processes


def command(world: int, *arguments: object) -> subprocess.CompletedProcess:
    port = str(21000 + os.getpid() % 20000)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(world)]
    return subprocess.run(
        [*start, "--master_port", port, "-m", "eval", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def forked(world: int, *arguments: object) -> tuple[list[int], str]:
    """The same from this process: exit codes of the ranks, and all that they said."""
    port, context = 21000 + (os.getpid() + world) % 20000, multiprocessing.get_context("fork")
    with tempfile.TemporaryFile("w+") as said:
        ranks = [
            context.Process(target=_rank, args=(rank, world, port, said.fileno(), arguments))
            for rank in range(world)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60)
            process.kill()
            process.join()
        said.seek(0)
        return [process.exitcode for process in ranks], said.read()


def _rank(rank: int, world: int, port: int, said: int, arguments: tuple) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for stream in (sys.stdout, sys.stderr):  # pytest's own, until here
        stream.flush()
    sys.stdout = sys.stderr = os.fdopen(said, "w", closefd=False)
    code = 1
    try:
        evaluate.main(args=list(map(str, arguments)), standalone_mode=False)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def options(folder: Path) -> list[str]:
    rest = (
        "batch=3 gfid.samples=17 gfid.seeds=1 gfid.guidance=[1,2] device=cpu save_every=0".split()
    )
    return [f"report={folder / 'report.html'}", f"limit={IMAGES}", *rest]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_many_processes_measure_like_one(runs, tmp_path, world):
    done = CliRunner().invoke(evaluate, [*map(str, runs), *options(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    if world == 2:
        done = command(world, *runs, *options(tmp_path / "many"))
        assert done.returncode == 0, done.stderr[-3000:]
        said = done.stdout
    else:
        codes, said = forked(world, *runs, *options(tmp_path / "many"))
        assert codes == [0] * world, said[-3000:]
    assert said.count("report: ") == 1  # the first process alone speaks
    one, many = (Results.load(tmp_path / name / "results.json") for name in ("one", "many"))
    assert (one.facts["world_size"], many.facts["world_size"]) == (1, world)
    assert {row.protocol for row in many.rows} == {"rfid", "pfid", "gfid"}
    assert len(one.rows) == len(many.rows)
    for a, b in zip(one.rows, many.rows, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9), a.display
        assert a.interval == (b.interval and pytest.approx(b.interval, rel=1e-4, abs=1e-9))
        floors = [row.floor and row.floor.model_dump() for row in (a, b)]
        values = [floor.pop("value") for floor in floors if floor]
        assert floors[0] == floors[1] and values[:1] == pytest.approx(values[1:], rel=1e-6)
        alike = {"value": None, "interval": None, "floor": None, "date": "", "commit": ""}
        assert a.model_copy(update=alike) == b.model_copy(update=alike)
        assert b.count == (17 if b.protocol == "gfid" else IMAGES)
    for name in ("codebook", "image_grids"):
        assert json.dumps(one.facts[name]) == json.dumps(many.facts[name]), name
    # Each outcome is in the cache once, and no part is left; one process finds all of it.
    names = sorted(path.name for path in (tmp_path / "many" / "eval_cache").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one" / "eval_cache").iterdir())
    assert {name.split("-")[0] for name in names} == {"rfid", "pfid", "gfid", "image_grids", "real"}
    if world == 2:
        done = CliRunner().invoke(evaluate, [*map(str, runs), *options(tmp_path / "many")])
        assert re.search(r"found (\d+) of \1 outcomes", done.output)
        assert "evaluating" not in done.output


@pytest.mark.slow
def test_two_processes_find_the_neighbors_of_one(runs, tmp_path):
    rest = "batch=3 device=cpu protocols=[ifid] ifid.mode=both ifid.train_images=37".split()
    rest.append(f"limit={IMAGES}")
    one, two = tmp_path / "one" / "report.html", tmp_path / "two" / "report.html"
    done = CliRunner().invoke(evaluate, [str(runs[0]), f"report={one}", *rest])
    assert done.exit_code == 0, done.output
    codes, said = forked(2, runs[0], f"report={two}", *rest)
    assert codes == [0, 0], said[-3000:]
    alone, shared = (Results.load(path.with_name("results.json")).rows for path in (one, two))
    assert len(alone) == len(shared) == 10
    for a, b in zip(alone, shared, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-6) and a.measured == b.measured
        assert a.note == b.note and "nearest of 37 training images" in a.note
    found = [sorted(path.parent.glob("eval_cache/neighbors-*")) for path in (one, two)]
    assert len(found[0]) == 4  # at full length, and at three lengths
    for a, b in zip(*found, strict=True):
        assert a.name == b.name and a.read_bytes() == b.read_bytes()


@pytest.mark.slow
def test_a_broken_image_of_one_process_ends_all(runs, tmp_path, broken):
    from PIL import Image

    for number in range(5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    shutil.copy(broken / "truncated.jpg", tmp_path / "9.jpg")
    data = ["data.kind=folder", f"data.val_path={tmp_path}", "data.size=8"]
    rest = ("batch=1", "protocols=[rfid]", "device=cpu")
    codes, said = forked(2, runs[0], *data, *rest)
    assert codes[1] == 1 and codes[0] != 0 and "error: 9.jpg: " in said and "rFID" not in said


def test_processes_that_do_not_find_each_other_stop(monkeypatch, fails):
    import torch.distributed as dist

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    with fails(ValueError, "started 2 processes but 1", "torchrun"), process_group("cpu"):
        pass
