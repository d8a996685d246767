"""`precision: auto` is what the hardware has; bf16 that it must imitate is told."""

from __future__ import annotations

import pytest
import torch
import yaml

from tests.support.training import TINY, rewound
from vistok.config import ConfigError, validate
from vistok.runtime import precision
from vistok.train.config import TrainConfig
from vistok.train.launch import slow_precision

MUON = {"kind": "muon", "precision": "auto"}


def config_of(**changes):
    return validate(TrainConfig, {**TINY, **changes}, "test")


@pytest.mark.parametrize(("native", "becomes"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_settled_where_a_config_is_read(monkeypatch, native, becomes):
    monkeypatch.setattr(precision, "has_bf16", lambda: native)
    config = config_of(precision="auto", optimizer=MUON)
    assert (config.precision, config.optimizer.precision) == (becomes, becomes)


@pytest.mark.parametrize("native", [True, False])
def test_what_is_given_is_never_changed(monkeypatch, native):
    monkeypatch.setattr(precision, "has_bf16", lambda: native)
    assert [config_of(precision=p).precision for p in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_run_records_what_it_computed(run, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    folder = run(TINY, precision="auto", optimizer=MUON, steps=2, warmup=0)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert (saved["precision"], saved["optimizer"]["precision"]) == ("fp32", "fp32")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bf16"}, "precision=bf16: this CPU"),
        ({"optimizer": {**MUON, "precision": "bf16"}}, "optimizer.precision=bf16: this CPU"),
        ({"precision": "fp32"}, None),
    ],
)
def test_bf16_that_is_imitated_is_told(monkeypatch, changes, words):
    config, cpu = config_of(**changes), torch.device("cpu")
    monkeypatch.setattr("vistok.train.launch.has_bf16", lambda device: True)
    assert slow_precision(config, cpu) is None
    monkeypatch.setattr("vistok.train.launch.has_bf16", lambda device: False)
    told = slow_precision(config, cpu)
    assert told is None if words is None else told.startswith(words)


def test_a_run_tells_it(run, capsys, monkeypatch):
    monkeypatch.setattr("vistok.train.launch.has_bf16", lambda device: False)
    run(TINY, precision="bf16", steps=1, warmup=0)
    assert "precision=bf16: this CPU has no bf16 instructions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "native"),
    [
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_is_asked_for_its_instructions(monkeypatch, known, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert precision.has_bf16("cpu") is native


def test_the_answer_is_about_a_device():
    assert precision.has_bf16("cpu") in (True, False)
    if not torch.cuda.is_available():
        assert precision.has_bf16() == precision.has_bf16("cpu")


def test_a_resume_in_another_precision_is_told(run, capsys, monkeypatch):
    rewound(run(TINY, precision="fp32", optimizer=MUON | {"precision": "fp32"}))
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    run(TINY, precision="fp32", optimizer=MUON)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("resumed from")]
    assert line.endswith(", optimizer.precision: fp32 before, bf16 now")


def test_processes_must_settle_alike(run, fails, monkeypatch):
    others = [{"precision": "fp32"}, {"precision": "bf16"}]
    monkeypatch.setattr("vistok.train.launch.gather_object", lambda mine: others)
    with fails(ConfigError, "'bf16'} on process 1", "say fp32 or bf16"):
        run(TINY)
