"""A pass that was stopped goes on where it was saved, and ends with the very same sums."""

import logging
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.processes import run
from vistok.eval.config import EvalConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.measure import evaluate
from vistok.eval.protocols import pfid, rfid
from vistok.eval.resumable import Cache, leaves
from vistok.metrics import PSNR, CodebookStats, FeatureStats

ROOT = Path(__file__).parents[2]


class Stop(Exception):
    pass


@dataclass
class Sums:
    """One of everything that a pass may keep."""

    total: torch.Tensor
    stats: FeatureStats
    metrics: dict
    nothing: None = None


def sums() -> Sums:
    total = torch.zeros((), dtype=torch.float64)
    return Sums(total, FeatureStats(3), {"psnr": [PSNR()]})


def add(states: Sums, batch) -> None:
    states.total += batch.pixels.double().sum()
    states.stats.update(batch.pixels.mean((2, 3)))
    states.metrics["psnr"][0].update(batch.pixels, batch.pixels.flip(-1))


def values(states: Sums):
    mean, cov = states.stats.mean.tolist(), states.stats.cov.tolist()
    return float(states.total), states.stats.count, mean, cov, states.metrics["psnr"][0].compute()


@pytest.fixture
def kept(context, make_tokenizer, tmp_path):
    """kept(batch, every) -> a context of 24 images whose passes are kept in one folder."""

    def make(batch=5, every=0.0, fresh=False):
        found = context(make_tokenizer("fsq"), batch=batch)
        found.passes = Cache(tmp_path / "cache", fresh, every).passes("k" * 64)
        return found

    return make


def go(context: Context, states: Sums, stop: int | None = None) -> list[int]:
    """The images that were seen; stops before batch number `stop` is added."""
    seen = []
    with exact():
        for number, batch in enumerate(context.batches("", states)):
            if number == stop:
                raise Stop
            seen += batch.index.tolist()
            add(states, batch)
    return seen


def stopped(context: Context, after: int) -> None:
    with pytest.raises(Stop):
        go(context, sums(), after)


def test_a_stopped_pass_ends_like_an_undisturbed_one(kept):
    whole = sums()
    assert go(kept(), whole) == list(range(24))
    kept().passes.clear()
    stopped(kept(), after=3)
    rest = sums()
    assert go(kept(), rest) == list(range(15, 24))
    assert values(rest) == values(whole)  # to the bit
    again = sums()
    assert go(kept(), again) == [] and values(again) == values(whole)  # it was over, and kept


@pytest.mark.filterwarnings("ignore")
def test_files_that_do_not_fit_are_not_used(kept, tmp_path, caplog, monkeypatch):
    stopped(kept(), after=3)
    assert go(kept(batch=4), sums()) == list(range(24)) and "another pass" in caplog.text
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    caplog.clear()
    assert go(kept(), sums()) == list(range(24))
    (line,) = caplog.messages
    assert path.name in line and "\n" not in line and caplog.records[0].levelno == logging.WARNING
    other = sums()
    other.stats = FeatureStats(4)
    one = kept().passes.begin(other, 5)
    assert one.done == 0 and other.stats.count == 0 and "other accumulators" in caplog.text
    # One process of two has another file, and begins at its own first batch.
    monkeypatch.setattr("vistok.runtime.distributed.world_size", lambda: 2)
    monkeypatch.setattr("vistok.runtime.distributed.rank", lambda: 0)
    assert kept().passes.begin(sums(), 5).done == 0
    monkeypatch.undo()
    assert go(kept(fresh=True), sums()) == list(range(24))
    assert kept().passes.begin(sums(), 5).done == 5


def test_nothing_is_kept_too_often(kept, tmp_path):
    stopped(kept(every=60.0), after=3)
    assert list((tmp_path / "cache").iterdir()) == []
    found = kept()
    go(found, sums())
    found.passes.clear()
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_cannot_be_kept_is_an_error_at_once(kept, fails):
    for states in (3, {"a": [1.5]}, torch.nn.Linear(2, 2)):
        with fails(TypeError, "cannot be kept"):
            go(kept(), states)
    assert [name for name, _ in leaves({"a": (torch.zeros(1), None), "b": PSNR()})] == ["a/0", "b"]


def test_a_pass_that_misses_an_image_is_an_error(kept, fails):
    found = kept()
    one = found.passes.begin(sums(), 5)
    one.step(torch.arange(5))
    with fails(ValueError, "5 samples", "each of 6 exactly once"):
        one.finish(6)
    one.step(torch.tensor([4]))  # twice, and 5 never
    with fails(ValueError, "exactly once"):
        one.finish(6)


@pytest.mark.filterwarnings("ignore:Fréchet")
@pytest.mark.parametrize("protocol", [rfid, pfid])
def test_protocols_go_on(kept, measure, protocol, monkeypatch):
    """Stopped in the third of five batches, whose sums are then made again."""
    name = protocol.__name__.rpartition(".")[2]
    whole = measure(kept(), name)
    kept().passes.clear()
    update, calls = CodebookStats.update if protocol is rfid else pfid.changed, []
    place = (CodebookStats, "update") if protocol is rfid else (pfid, "changed")
    cells = 1 if protocol is rfid else 16

    def broken(*args):
        calls.append(1)
        if len(calls) > 2 * cells:
            raise Stop
        return update(*args)

    monkeypatch.setattr(*place, broken)
    with pytest.raises(Stop):
        measure(kept(), name)
    calls.clear()
    monkeypatch.setattr(*place, lambda *args: (calls.append(1), update(*args))[1])
    rows = measure(kept(), name)
    assert rows == whole and len(calls) == 3 * cells


KILLED = """
import os, signal, sys
from vistok.eval.measure import evaluate
from vistok.eval.config import EvalConfig
from vistok.eval.protocols import generated
real, calls = generated.sample, []
def sample(*args):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
generated.sample = sample
options = EvalConfig(
    protocols=("rfid", "gfid"), limit=24, batch=8, cache=sys.argv[1], save_every=0.0,
    gfid={"seeds": 1},
)
evaluate(sys.argv[2:], options)
"""


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(runs, tmp_path, monkeypatch):
    """SIGKILL in the third sampling pass of gFID: rFID is found, three passes are not done again,
    all numbers are those of an undisturbed evaluation."""
    from vistok.eval.protocols import generated

    cache = tmp_path / "cache"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = run(str(script), cache, *runs)
    assert done.returncode == -signal.SIGKILL
    assert {p.name.split("-")[0] for p in cache.iterdir()} >= {"rfid", "part", "real"}
    real, calls, said = generated.sample, [], []
    monkeypatch.setattr(generated, "sample", lambda *args: (calls.append(1), real(*args))[1])
    options = dict(protocols=("rfid", "gfid"), limit=24, batch=8, gfid={"seeds": 1})
    results = evaluate(runs, EvalConfig(**options, cache=str(cache), save_every=0.0), said.append)
    again = len(calls)
    assert "found 0 of" not in said[0] and "rfid of tok" in said[0] and "gfid of gen" in said[1]
    assert {p.name.split("-")[0] for p in cache.iterdir()} == {"rfid", "gfid", "real"}
    calls.clear()
    plain = evaluate(runs, EvalConfig(**options))
    assert again == len(calls) - 7  # 3 batches a pass: seven were done before the kill
    strip = lambda row: row.model_copy(update={"date": "", "commit": ""})
    for a, b in zip(results.rows, plain.rows, strict=True):
        a, b = strip(a).model_dump(), strip(b).model_dump()
        assert a == b, {k: (a[k], b[k]) for k in a if a[k] != b[k]}


def test_real_features_are_kept(make_tokenizer, features, tmp_path, monkeypatch, caplog):
    from vistok.data import Photos, PhotosConfig

    data = Photos(PhotosConfig(size=8, val_count=24)).open("val")
    views = lambda **rest: Views(data, cache=Cache(tmp_path), **rest)
    with exact():
        first = views().stats(features)
        (path,) = tmp_path.iterdir()
        monkeypatch.setattr(Views, "_measure", None)
        second = views(batch=7).stats(features)  # found, not measured
        assert (first.mean == second.mean).all() and (first.cov == second.cov).all()
        monkeypatch.undo()
        path.write_bytes(b"no statistics")
        assert views().stats(features).count == 24 and path.name in caplog.text
        assert views(limit=5).stats(features).count == 5
