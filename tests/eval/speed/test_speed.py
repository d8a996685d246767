"""`vistok eval speed`: config files, the machine's limit, and the search of a codebook."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.support.generators import made
from vistok.config import shipped, validate_part
from vistok.config.registry import build
from vistok.core.records import Batch, Latents
from vistok.eval.__main__ import speed
from vistok.eval.results.rows import Results
from vistok.eval.speed import clock as clocks
from vistok.eval.speed import lookup, sampling
from vistok.eval.speed import measure as speeds
from vistok.eval.speed.clock import Clock, flops, largest_products
from vistok.eval.speed.config import SpeedConfig
from vistok.eval.speed.parts import peak_memory
from vistok.eval.speed.training_step import TrainingStep, config_file, plain_step
from vistok.tokens import TokenSpec
from vistok.train.tasks.base import Phase

TRANSFORMER = {"width": 16, "depth": 1, "heads": 2}
PART = {"kind": "vit", "patches": {"size": 4}, "transformer": TRANSFORMER}
TREE = {
    "name": "small",
    "task": {
        "kind": "tokenizer",
        "tokenizer": {
            "image_size": 8,
            "encoder": {**PART, "latents": {"count": 2}},
            "quantizer": {"kind": "vq", "codebook_size": 8, "dim": 4},
            "decoder": PART,
        },
    },
    "data": {"kind": "folder", "train": "no/such/folder", "val": "no/such/folder"},
}

PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(clocks, "_SIDE", 64)
    # The real call is of the whole process, and tests are many in one.
    monkeypatch.setattr("vistok.train.memory.keep_freed_memory", lambda: True)


def test_a_config_file_is_measured_at_every_size_and_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.eval.speed.training_step.has_bf16", lambda device: True)
    path, target = tmp_path / "small.yaml", tmp_path / "speed.json"
    path.write_text(yaml.safe_dump(TREE))
    arguments = [str(path), "batch=[2,3]", "precision=[fp32,bf16]", "repeats=1"]
    result = CliRunner().invoke(speed, [*arguments, f"report={target}"])
    assert result.exit_code == 0, result.output
    results = Results.load(target)
    shares = results.find("train-share", "small")
    assert [(row.precision, row.count) for row in shares] == [
        *(("fp32", 2), ("fp32", 3), ("bf16", 2), ("bf16", 3))
    ]
    rates = {(r.precision, r.count): r for r in results.find("train-FLOP/s")}
    for row in results.find("train-images/s"):
        # the rates of images and of FLOP are those of one time: their quotient is the count
        each = float(row.note.split()[0]) * 1e9
        quotient = rates[row.precision, row.count].value / row.value
        assert quotient == pytest.approx(each, abs=0.06e9) and quotient > 1e5
    assert set(results.facts["matrix_product_flops"]) == {"float32", "bfloat16"}


def test_bf16_is_not_measured_where_it_is_imitated(tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.eval.speed.training_step.has_bf16", lambda device: False)
    path, target = tmp_path / "small.yaml", tmp_path / "speed.json"
    path.write_text(yaml.safe_dump({**TREE, "precision": "bf16", "batch_size": 2}))
    result = CliRunner().invoke(speed, [str(path), "repeats=1", f"report={target}"])
    assert result.exit_code == 0, result.output
    (row,) = Results.load(target).rows
    assert (row.metric, row.value, row.precision) == ("train-images/s", None, "bf16")
    assert "not measured" in result.output and "no bf16 instructions" in result.output
    result = CliRunner().invoke(speed, ["tiny/video_vit", "precision=bf16", "batch=2"])
    assert result.exit_code == 0 and "train-clips/s" in result.output


def test_nor_the_step_of_a_run_that_was_trained_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.eval.speed.training_step.has_bf16", lambda device: False)
    batch = Batch(torch.arange(2), torch.rand(2, 3, 8, 8))
    row = lambda metric, value, run, precision, note: (metric, value, precision, note)
    config = {**TREE, "data": None, "precision": "bf16"}
    run = SimpleNamespace(config=config, folder=tmp_path)
    timed = SimpleNamespace(batch=batch, row=row, unit="image")
    (found,) = speeds._Speed.training(timed, run)
    assert found[:3] == ("train-images/s", None, "bf16") and "no bf16" in found[3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a run"),
        (["x.yaml"], "x.yaml"),
        (["x.yaml", "batch=0"], "batch"),
        (["x.yaml", "precision=fp8"], "fp8"),
        (["somewhere", "batch=[4,16]"], "config files"),
    ],
)
def test_mistakes(arguments, words):
    result = CliRunner().invoke(speed, arguments)
    assert result.exit_code and words in result.output and "Traceback" not in result.output


def test_shares_are_of_the_rates_on_both_sides(monkeypatch):
    clock = Clock(torch.device("cpu"), repeats=2)
    rates, seconds = iter([100.0, 300.0, 500.0]), iter([9.0, 1.0, 2.0])
    monkeypatch.setattr(clock, "rate", lambda kind, shapes: next(rates))
    monkeypatch.setattr(clock, "once", lambda function: next(seconds))
    timing = clock.time(lambda: None, torch.float32, count=100)
    # 100 / 1 of 200, 100 / 2 of 400; the first call only warms up
    assert timing.share == pytest.approx((0.5 + 0.125) / 2)
    assert (timing.seconds, timing.limit, timing.own_share) == (1.5, 300.0, 0.0)


def test_products_are_found_and_counted():
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.randn(5, 6)
    work = lambda: a @ b @ c
    assert largest_products(work) == [(3, 5, 6), (3, 4, 5)]
    assert flops(work) == 2 * (3 * 4 * 5 + 3 * 5 * 6)


@pytest.mark.parametrize("installed", [False, True])
def test_lookup_rows(monkeypatch, installed):
    monkeypatch.setattr(lookup, "VECTORS", (5,))
    monkeypatch.setattr(lookup, "SIZES", (8,))
    monkeypatch.setattr(lookup, "DIMS", (4,))
    if installed:
        pytest.importorskip("vector_quantize_pytorch")
    else:
        monkeypatch.setattr(lookup, "_theirs", lambda *_: None)
    rows = list(lookup.lookup_rows(Clock(torch.device("cpu"), repeats=1)))
    ratios = [row for row in rows if row.metric == "vq-lookup-ratio"]
    assert [row.run for row in ratios] == [
        f"V=8 d=4 {kind} {how}" for kind in ("euclid", "cosine") for how in ("forward", "backward")
    ]
    assert all((row.value is not None) == installed for row in ratios)
    assert installed or all("not installed" in row.note for row in ratios)


@pytest.mark.parametrize("cosine", [False, True])
def test_both_libraries_are_given_the_same_work(cosine):
    pytest.importorskip("vector_quantize_pytorch")
    ours, theirs = lookup._ours(32, 4, cosine), lookup._theirs(32, 4, cosine)
    table = theirs.codebook.detach()
    with torch.no_grad():
        ours.codebook.copy_(table)
    z = torch.randn(1, 50, 4)
    found = ours(Latents(z, ((50,),))).indices[..., 0]
    assert torch.equal(found, theirs(z)[1])
    for module, loss in ((ours, lookup._our_loss), (theirs, lookup._their_loss)):
        lookup._run(module, lambda x, m=module, f=loss: f(m, x), z, True)()
        learns = [p for p in module.parameters() if p.grad is not None]
        assert len(learns) == (0 if cosine else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_peak_memory_is_that_of_the_call():
    device = torch.device("cpu")
    peak, note = peak_memory(lambda: None, device)
    more, _ = peak_memory(lambda: torch.ones(64, 2**20).sum(), device)  # 256 MB
    assert more - peak == pytest.approx(2**28, rel=0.1) and "resident" in note
    again, _ = peak_memory(lambda: None, device)
    assert again < peak + 2**25  # the mark starts again


def test_a_config_may_be_named_as_the_train_command_names_it(runs, monkeypatch):
    assert config_file("tiny/titok_vq") == shipped.find("tiny/titok_vq")
    assert config_file("x.yaml") == Path("x.yaml")
    for run in (runs[0], "titok-l32", "runs/nothing"):
        assert config_file(run) is None
    monkeypatch.chdir(runs[0].parent)
    (runs[0].parent / "titok_vq").mkdir()
    assert config_file("titok_vq") is None  # a folder that exists is a run


def test_the_timed_step_is_one_without_looks_at_each_term():
    one = (Phase("tokenizer"),)
    assert plain_step(1000, one) == 999 and plain_step(1, one) == 1
    assert plain_step(1000, (*one, Phase("discriminator", every=2, start=600))) == 998
    assert plain_step(1000, (Phase("discriminator", every=5),)) == 1000
    step = TrainingStep({**TREE, "data": None, "steps": 500}, Batch(torch.arange(2), PIXELS), "x")
    assert step.progress.step == 499


def test_weights_are_read_once_for_each_window_of_codes(monkeypatch):
    spec = TokenSpec(blocks=((2, 4),), vocab=(16,))
    model = made("autoregressive", spec, window=2).eval()
    monkeypatch.setattr(sampling, "_BYTES", 4000)
    seconds = lambda call: (call(), 2.0)[1]
    clock = SimpleNamespace(repeats=1, device=torch.device("cpu"), once=seconds)
    row = lambda name, value, **facts: (name, value)
    found = dict(sampling._rows(model, clock, {}, "fp32", 1, row, "image"))
    read = sampling.weights_read(model) * 4 * 2  # bytes of two steps
    assert found["sample-bandwidth-share"] == pytest.approx(read / 4000)


def test_a_generator_that_continues_clips_is_given_codes_of_known_frames():
    condition = {"classes": 0, "dropout": 0.0, "first_frames": 2}
    tree = {"kind": "autoregressive", "transformer": TRANSFORMER, "condition": condition}
    spec = TokenSpec(blocks=((4,),), vocab=(8,), dim=2)
    model = build(validate_part("generator", tree), spec).eval()
    assert len(sampling.samples(model, 3, {})()) == 3


def test_evaluation_rows(runs, monkeypatch):
    """The rows are there, of the run's images; what is undefined for a tokenizer has none."""
    asked = SpeedConfig(evaluation=True, batch=(16,), repeats=1)
    monkeypatch.setattr(speeds._Speed, "training", lambda self, run: [])
    results = speeds.measure_speed(runs[:1], asked)
    found = {row.metric: row for row in results.rows}
    assert found["features-images/s"].count == 16 and 0 < found["features-ratio"].value
    assert "3 lengths" in found["rfid-images/s"].note
    assert "3 cells of 2 images" in found["pfid-quick-images/s"].note
    assert {"pfid-batch-gain", "rfid-images/s"} <= set(found)
    assert all(row.value > 0 and row.run == "tok" for row in found.values())
