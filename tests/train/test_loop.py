"""The loop: determinism, exact resume, accumulation, averaging."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.training import STATEFUL, TINY, lines, rewound
from vistok.config import ConfigError

TIMED = ("images_per_s", "data_wait", "tflops", "mfu", "peak_rss_gb")


def untimed(folder):
    return [{k: v for k, v in row.items() if k not in TIMED} for row in lines(folder)]


def files(folder, step):
    checkpoint = folder / "checkpoints" / f"step_{step:08d}"
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


def test_the_loss_falls(run):
    rows = lines(
        run(TINY, steps=150, save_every=0, warmup=5, optimizer={"kind": "adamw", "lr": 5e-3})
    )
    first, last = (sum(r["loss"] for r in part) for part in (rows[:10], rows[-10:]))
    assert last < 0.85 * first


@pytest.mark.parametrize("tree", [TINY, STATEFUL], ids=["fsq", "vq-ema-gan"])
def test_one_seed_gives_one_run_and_another_gives_another(run, tree):
    a, b = run(tree, "a"), run(tree, "b")
    assert untimed(a) == untimed(b)
    assert files(a, 12) == files(b, 12)
    assert untimed(run(tree, "c", seed=1)) != untimed(a)


@pytest.mark.parametrize(
    "tree",
    [TINY, STATEFUL, {**STATEFUL, "optimizer": {"kind": "muon"}, "accumulate": 2}],
    ids=["fsq", "vq-ema-gan", "muon-accumulated"],
)
def test_a_resumed_run_equals_one_that_never_stopped(run, tree):
    whole = run(tree, "whole")
    stopped = rewound(whole)
    run(tree, "stopped")
    assert untimed(stopped) == untimed(whole)
    assert files(stopped, 12) == files(whole, 12)  # models, averages, optimizers, counters
    model = "model/model.safetensors"
    assert (stopped / model).read_bytes() == (whole / model).read_bytes()


def test_network_dropout_resumes_too(run):
    tree = {**TINY, "task": {**TINY["task"]}}
    tree["task"]["tokenizer"] = {**TINY["task"]["tokenizer"]}
    tree["task"]["tokenizer"]["encoder"] = {
        **TINY["task"]["tokenizer"]["encoder"],
        "transformer": {"width": 16, "depth": 1, "heads": 2, "dropout": 0.2},
    }
    whole = run(tree, "whole")
    stopped = rewound(whole)
    run(tree, "stopped")
    assert files(stopped, 12) == files(whole, 12)


def test_a_finished_run_is_left_alone(run, capsys):
    folder = run(TINY)
    before = (folder / "metrics.jsonl").read_bytes()
    run(TINY)
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert "finished 12 steps" in capsys.readouterr().out


def test_micro_batches_give_the_losses_of_the_whole_batch(run):
    whole, split = run(TINY, "whole"), run(TINY, "split", accumulate=4)
    for a, b in zip(lines(whole), lines(split), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)


def test_the_average_is_the_closed_form(run):
    folder = run(TINY, ema=0.5, save_every=1, steps=4)
    weights = [
        load_file(folder / "checkpoints" / f"step_{s:08d}" / "tokenizer.safetensors")
        for s in range(1, 5)
    ]
    average = load_file(folder / "checkpoints/step_00000004/ema.tokenizer.safetensors")
    key = "decoder.embed.weight"
    expected = weights[0][key].double()  # the first update copies
    for t, one in enumerate(weights[1:], start=1):
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * one[key].double()
    assert torch.allclose(average[key].double(), expected, atol=1e-6)
    assert not torch.equal(average[key], weights[-1][key])


def test_the_run_leaves_what_it_promises(run):
    folder = run(TINY, trackers=["tensorboard"])
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model", "checkpoints", "images"} <= names
    validation = lines(folder, "val")[-1]
    assert {"psnr", "psnr@1", "psnr@2", "codebook_usage", "slot_redundancy"} <= set(validation)
    assert any("tfevents" in path.name for path in folder.rglob("*"))
    row = lines(folder)[-1]
    assert {"loss", "l2", "lr", "images_per_s", "data_wait", "epoch", "samples"} <= set(row)


def test_wandb_runs_offline_without_a_key(run, monkeypatch, capsys):
    """With the very grids that lie in `images/`, and a line that says where the run is."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    folder = run(TINY, trackers=["wandb"], steps=2, warmup=0)
    (place,) = (path for path in folder.rglob("offline-run*") if path.is_dir())
    (kept,) = (folder / "images").glob("reconstructions_*.png")
    (sent,) = place.rglob("media/images/*.png")
    assert Image.open(sent).convert("RGB").tobytes() == Image.open(kept).convert("RGB").tobytes()
    assert f"wandb sync {place} uploads it" in capsys.readouterr().out


def test_bf16_trains_and_keeps_weights_in_fp32(run):
    folder = run(TINY, precision="bf16")
    weights = load_file(folder / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.mark.slow
def test_compiled_networks_train_to_the_same_losses(run):
    plain, compiled = run(TINY, "plain", steps=4), run(TINY, "compiled", steps=4, compile=True)
    for a, b in zip(lines(plain), lines(compiled), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    keys = load_file(compiled / "model" / "model.safetensors")
    assert not [key for key in keys if "_orig_mod" in key]


def test_stages_start_from_saved_parts_freeze_and_slow_down(run):
    first = run(TINY, "first")
    task = {
        **TINY["task"],
        "init": {"path": str(first / "model"), "parts": ["encoder"]},
        "freeze": ["encoder"],
        "lr": {"decoder.head": 0.0},
    }
    second = run({**TINY, "task": task}, "second", ema=None)
    a, b = (load_file(f / "model" / "model.safetensors") for f in (first, second))
    assert all(torch.equal(a[k], b[k]) for k in a if k.startswith("encoder."))
    assert not torch.equal(a["decoder.embed.weight"], b["decoder.embed.weight"])


def test_a_frozen_quantizer_keeps_its_ema_codebook(run):
    task = {**STATEFUL["task"], "losses": [{"kind": "reconstruction"}]}
    first = run({**STATEFUL, "task": task}, "first")
    again = {**task, "init": {"path": str(first / "model")}, "freeze": ["quantizer"]}
    second = run({**STATEFUL, "task": again}, "second")
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (first, second))
    assert all(torch.equal(a[key], b[key]) for key in a if key.startswith("quantizer."))
    assert not torch.equal(a["decoder.embed.weight"], b["decoder.embed.weight"])


@pytest.mark.parametrize("key", ["freeze", "lr"])
def test_names_of_parts_are_checked(run, key):
    wrong = ["decodr"] if key == "freeze" else {"decodr": 0.1}
    with pytest.raises(ConfigError, match=f"task.{key}: 'decodr' names no part"):
        run({**TINY, "task": {**TINY["task"], key: wrong}})


def test_a_discriminator_has_its_own_learning_rate_under_muon(run):
    import copy

    tree = copy.deepcopy(STATEFUL)
    tree["task"]["losses"][1]["lr"] = 1e-5
    rows = lines(run({**tree, "optimizer": {"kind": "muon"}}))
    assert max(row.get("discriminator_lr", 0) for row in rows) == pytest.approx(1e-5, rel=0.3)
