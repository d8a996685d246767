"""Losses that own networks: trained with the tokenizer, or in phases of their own."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from tests.support.training import STATEFUL, TINY, lines, rewound
from vistok.config import ConfigError, load_plugins, validate
from vistok.config.registry import build
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan

PROJECTOR = {"kind": "color_projector"}
PROBE = {"kind": "brightness_probe", "lr": 1e-2}
GAN = {"kind": "adversarial", "lecam": 0.01, "discriminator": {"kind": "patchgan", "width": 8}}


@pytest.fixture(autouse=True)
def _parts():
    load_plugins(["tests.support.train_parts"])


def with_losses(*losses: dict, tree: dict = TINY) -> dict:
    tree = copy.deepcopy(tree)
    given = tree["task"].get("losses", [{"kind": "reconstruction"}])
    tree["task"]["losses"] = [*given, *copy.deepcopy(losses)]
    return tree


def gan(**options) -> dict:
    part = copy.deepcopy(GAN) | {"start": 0} | options
    if part["discriminator"]["kind"] == "patchgan":
        part["discriminator"]["layers"] = 1
    return part


def saved(folder, name: str, step: int = 12) -> dict:
    return load_file(folder / f"checkpoints/step_{step:08d}/{name}.safetensors")


def files(folder, step: int = 12) -> dict[str, bytes]:
    path = folder / f"checkpoints/step_{step:08d}"
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_projector_trains_with_the_tokenizer(run):
    folder = run(with_losses(PROJECTOR), warmup=0)
    first, last = saved(folder, "projector", 4), saved(folder, "projector")
    assert set(last) == {"weight", "bias"} and not torch.equal(first["weight"], last["weight"])
    assert set(saved(folder, "optimizer.projector")) >= {"weight/exp_avg", "bias/exp_avg_sq"}
    rows = lines(folder)
    assert rows[-1]["color"] < rows[0]["color"]
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["l2"] + 0.5 * rows[-1]["color"])
    # One norm over both is clipped: the parts' squares add up to the whole's.
    norms = {k: v for k, v in rows[-1].items() if k.startswith("tokenizer_grad_norm")}
    parts = [v for k, v in norms.items() if "/" in k]
    assert norms["tokenizer_grad_norm/projector"] > 0
    assert norms["tokenizer_grad_norm"] ** 2 == pytest.approx(sum(p**2 for p in parts), rel=1e-5)
    model = load_file(folder / "model/model.safetensors")
    assert not [key for key in model if "projector" in key]  # it is no part of the tokenizer


def test_gradients_reach_the_encoder_through_the_projector():
    config = validate(TrainConfig, with_losses(PROJECTOR))
    torch.manual_seed(0)
    task = build(config.task, None)
    (phase,) = task.phases
    assert phase.modules == ("tokenizer", "projector")
    batch = task.example(2)
    draws = task.draw(batch.index, 0, progress())
    task.step(phase, batch, draws, progress(), {}).scalars["color"].backward()
    assert task.tokenizer.encoder.latent_tokens.grad.abs().sum() > 0
    assert task.modules["projector"].weight.grad.abs().sum() > 0


def progress(step: int = 0):
    from vistok.core.schedules import Progress

    return Progress(step, 10)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_losses_with_networks_resume_exactly(run, accumulate):
    """A projector, a probe and a discriminator, beside an EMA codebook with revival."""
    tree = with_losses(PROJECTOR, PROBE, tree=STATEFUL) | {"accumulate": accumulate}
    whole = run(tree, "whole")
    stopped = rewound(whole)
    run(tree, "stopped")
    assert files(stopped) == files(whole)
    names = {name.partition(".safetensors")[0] for name in files(whole)}
    own = {"projector", "probe", "discriminator"}
    assert own | {f"optimizer.{name}" for name in own} <= names


def test_a_phase_that_is_no_discriminator(run):
    folder = run(with_losses(PROBE | {"start": 2}))
    plain = run(TINY, "plain")
    # It sees the tokenizer, and the tokenizer does not see it.
    assert files(folder)["tokenizer.safetensors"] == files(plain)["tokenizer.safetensors"]
    rows = lines(folder)
    assert ["brightness" in row for row in rows[:4]] == [False, False, True, True]
    assert rows[-1]["brightness"] < rows[2]["brightness"]
    assert rows[-1]["probe_loss"] == rows[-1]["brightness"] and rows[-1]["probe_lr"] > 0


def test_two_discriminators(run):
    tree = with_losses(gan(weight=0.5), gan(name="second", weight=0.25, lr=1e-5, start=3))
    folder = run(tree)
    assert {"discriminator.safetensors", "second_discriminator.safetensors"} <= set(files(folder))
    rows = lines(folder)
    assert "discriminator_lr" in rows[2] and "second_discriminator_lr" not in rows[2]
    row = rows[-1]
    assert row["second_discriminator_lr"] < 1.1e-5 < row["discriminator_lr"]
    for name in ("adversarial", "discriminator", "logits_real", "lecam", "adaptive_weight"):
        assert {name, f"second_{name}"} <= set(row)
    first = 0.5 * row["adaptive_weight"] * row["adversarial"]
    second = 0.25 * row["second_adaptive_weight"] * row["second_adversarial"]
    assert row["loss"] == pytest.approx(row["l2"] + first + second, abs=1e-6)
    a, b = (saved(folder, name) for name in ("discriminator", "second_discriminator"))
    assert a.keys() == b.keys() and not torch.equal(a["ema_real"], b["ema_real"])
    stopped = rewound(folder)
    run(tree, "stopped")
    assert files(stopped) == files(folder)


def test_a_plan_counts_the_networks_of_losses():
    config = validate(TrainConfig, with_losses(PROJECTOR, PROBE, gan()))
    task = build(config.task, None)
    plan = make_plan(config)
    parts = {part.name: part for part in plan.parts}
    for name in ("projector", "probe", "discriminator"):
        count = sum(p.numel() for p in task.modules[name].parameters())
        assert (parts[name].trained, parts[name].frozen) == (count, 0)
        assert parts[name].flops > 0 and task.facts().lines[f"{name} parameters"] == f"{count:,}"
    trained = sum(p.numel() for m in task.modules.values() for p in m.parameters())
    assert plan.memory.gradients == 4 * trained
    assert set(plan.work) == {"tokenizer", "probe", "discriminator"}


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((gan(), gan()), "gives the term 'adversarial', which another loss gives already"),
        ((PROBE, PROBE), "trains a network 'probe', which is another's name already"),
        ((gan(name="Big"),), "name"),
    ],
)
def test_names_must_differ(run, losses, words):
    with pytest.raises(ConfigError, match=words):
        run(with_losses(*losses))


def test_a_network_that_nothing_trains_is_refused(run):
    with pytest.raises(ValueError, match=r"parameter network\.weight asks for a gradient, but"):
        run(with_losses({"kind": "forgotten"}))


def test_an_adaptive_weight_needs_a_last_layer_that_trains(run):
    tree = with_losses(gan())
    tree["task"]["freeze"] = ["decoder"]
    with pytest.raises(ConfigError, match="set adaptive=false or freeze less"):
        run(tree)


@pytest.mark.parametrize(
    "quantizer", [{"kind": "fsq", "levels": [5, 5]}, {"kind": "lfq", "bits": 4}]
)
def test_an_adaptive_weight_without_other_terms_is_one(run, quantizer):
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["quantizer"] = quantizer
    tree["task"]["losses"] = [gan()]
    row = lines(run(tree, steps=2, warmup=0))[-1]
    assert row["adaptive_weight"] == 1


def test_losses_that_teach_nothing_are_one_line(run, fails):
    tree = copy.deepcopy(TINY)
    tree["task"]["losses"] = [gan(start=5)]  # FSQ has no loss of its own
    with fails(ConfigError, "task.losses: no term has a gradient at step 1"):
        run(tree)


def test_frozen_networks_of_losses_stand_in_the_record():
    network = {"network": "vit", "weights": "random", "image_size": 16, "patch": 8}
    network |= {"width": 16, "depth": 2, "heads": 2}
    semantic = {"kind": "alignment", "name": "semantic", "network": {"kind": "vit", **network}}
    semantic |= {"features": "pooled", "how": "infonce", "student": "latents"}
    semantic |= {"projector": {"kind": "linear"}}
    head = {"kind": "dino", "network": network, "readouts": [0]}
    losses = (semantic, gan(discriminator=head), {"kind": "perceptual", "network": "vistok-cnn"})
    config = validate(TrainConfig, with_losses(*losses))
    task = build(config.task, None)
    record = task.record()
    assert set(record) == {"frozen semantic.vit (sha256)", "frozen adversarial.vit (sha256)"}
    assert len(set(record.values())) == 1 and all(len(one) == 64 for one in record.values())
    heads = task.losses.networks["discriminator"].discriminator.heads
    count = sum(p.numel() for p in heads.parameters())
    assert task.facts().lines["discriminator parameters"] == f"{count:,}"
    assert set(task.losses.networks) == {"semantic_projector", "discriminator"}
    through = {**semantic, "through": "encoder.proj"}
    config = validate(TrainConfig, with_losses(through | {"network": {"kind": "vit", **network}}))
    task = build(config.task, None)
    assert set(task.tokenizer.encoder.proj.parameters()) <= task.whole("tokenizer")
