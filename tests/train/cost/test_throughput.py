"""FLOP/s, their share of the peak, and memory."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.support.training import TINY, lines
from vistok.config import validate
from vistok.train.config import TrainConfig
from vistok.train.cost.peaks import peak_of
from vistok.train.cost.plan import make_plan
from vistok.train.cost.planned import Stage
from vistok.train.cost.throughput import Throughput, make_throughput, memory, precision

CPU = torch.device("cpu")


def config_of(**overrides) -> TrainConfig:
    return validate(TrainConfig, {**copy.deepcopy(TINY), **overrides})


def test_steps_of_two_stages_are_averaged():
    throughput = Throughput((Stage(0, 100.0), Stage(10, 400.0)), peak=1e6)
    assert throughput.flops(0, 10) == 100
    assert throughput.flops(10, 20) == 400
    assert throughput.flops(8, 12) == 250
    assert throughput.facts(8, 12, 2000.0) == {"tflops": 0.5e-6, "mfu": 0.5}
    assert Throughput((Stage(0, 100.0),)).facts(0, 1, 10.0) == {"tflops": 1e-9}
    assert Throughput().facts(0, 1, 10.0) == {}


def test_a_meter_counts_what_a_plan_counts():
    config = config_of(peak_tflops=0.5)
    throughput = make_throughput(config, None, CPU, world=4)
    assert throughput.stages == make_plan(config).stages
    assert throughput.peak == 2e12
    assert make_throughput(config_of(), None, CPU, 1).peak is None


def test_a_step_that_cannot_be_counted_stops_nothing(monkeypatch):
    def broken(*_):
        raise RuntimeError("no meta kernel\nfor my.op")

    monkeypatch.setattr("vistok.train.cost.throughput.stages_of", broken)
    throughput = make_throughput(config_of(steps=77), None, CPU, 1)
    assert throughput.facts(0, 1, 1.0) == {}
    assert throughput.reason == "no meta kernel for my.op"


@pytest.mark.parametrize(
    ("name", "kind", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100-SXM4-40GB", "tf32", 156.0),
        ("NVIDIA A100-PCIE-40GB", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "bf16", 312.0),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA B200", "bf16", 2250.0),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA A10", "bf16", 125.0),
        ("Tesla V100-SXM2-32GB", "fp32", 15.7),
        ("NVIDIA GeForce RTX 3090", "bf16", 71.0),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        # Another card, a slice of one, or a card without the unit: no number rather than a wrong.
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("Some Other Device", "fp32", None),
    ],
)
def test_peaks_by_name(name, kind, peak):
    assert peak_of(name, kind) == peak


def test_precision_of_most_products():
    assert precision(config_of(precision="bf16")) == "bf16"
    assert precision(config_of()) == "fp32"
    torch.set_float32_matmul_precision("high")
    try:
        assert precision(config_of()) == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_peak_memory_of_a_process():
    before = memory(CPU)["peak_rss_gb"]
    block = torch.ones(2**26)  # a quarter of a GiB that is really touched
    after = memory(CPU)
    assert set(after) == {"peak_rss_gb"}
    assert 0.05 < before <= after["peak_rss_gb"] < 64
    del block


def test_a_run_logs_its_rate(run):
    row = lines(run(TINY, counted=True, peak_tflops=0.25))[-1]
    flops = make_plan(config_of()).stages[0].flops
    assert row["tflops"] == pytest.approx(flops * row["images_per_s"] / 1e12)
    assert row["mfu"] == pytest.approx(row["tflops"] / 0.25)
    assert row["peak_rss_gb"] > 0.05 and "peak_memory_gb" not in row
