"""The study of lengths: every run builds and steps, and all take the same compute."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.core.schedules import Progress
from vistok.eval.study.study import read_study, run_config
from vistok.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]
NAMES = ("lengths", "lengths_tiny")
RUNS = (
    *("fixed-length", "nested-uniform", "nested-pow2"),
    *("tail-hard", "tail-soft", "redundant-padding"),
)


@pytest.fixture(params=NAMES)
def study(request, monkeypatch):
    monkeypatch.chdir(ROOT)
    return read_study(ROOT / f"configs/studies/{request.param}.yaml")


def test_every_run_builds_and_steps(study):
    assert tuple(study.runs) == RUNS
    costs = {}
    batch = Batch(torch.arange(2), pixels=torch.rand(2, 3, 32, 32))
    for name in study.runs:
        config = run_config(study, name)
        torch.manual_seed(0)
        tokenizer = Tokenizer(config.task.tokenizer)
        assert tokenizer.spec().length == 16
        assert (tokenizer.spec().prefix == "none") == (name == "fixed-length")
        draws = tokenizer.draw(batch.index, config.seed, Progress(0, config.steps))
        loss = build(config.task.losses[0])
        with FlopCounterMode(display=False) as counter:
            terms = loss(tokenizer(batch, draws), batch, Progress(0, config.steps))
            sum(terms.values()).backward()
        assert all(p.grad is not None for p in tokenizer.encoder.parameters())
        costs[name] = counter.get_total_flops() * config.steps
    least = min(costs.values())
    assert max(costs.values()) <= 1.03 * least, costs
    # Redundant latents are trained with, and never stored.
    tokens = tokenizer.eval().encode(batch.pixels, length=[1, 16])
    assert tokens.indices.shape[1] == 16 and tokenizer.decode(tokens).shape == (2, 3, 32, 32)
