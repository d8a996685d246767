"""Sequence lengths that vary are data, not shapes: each phase is compiled once and for all."""

import copy
import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from tests.support.training import STATEFUL, TINY
from vistok.core.records import Batch
from vistok.tokenizer import Tokenizer


@pytest.fixture
def compiled(monkeypatch):
    """What `torch.compile` compiles from now on: a counter of graphs a call. A recompile raises."""
    real, made = torch.compile, []

    def compile(module):
        # Traced and differentiated as inductor would have it, without its minute of g++.
        made.append(CompileCounterWithBackend("aot_eager"))
        return real(module, backend=made[-1])

    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", compile)
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield made
    torch._dynamo.reset()


@pytest.fixture
def keeps(monkeypatch):
    """The kept lengths [B] of each sample of draws."""
    seen, draw = [], Tokenizer.draw

    @functools.wraps(draw)
    def spy(self, *args):
        draws = draw(self, *args)
        seen.append(draws.keep.flatten().tolist())
        return draws

    monkeypatch.setattr(Tokenizer, "draw", spy)
    return seen


def train_on_mixed_lengths(run, keeps, tree):
    """12 compiled steps whose kept lengths differ in each batch and from step to step."""
    tree = copy.deepcopy(tree)
    tree["task"]["tokenizer"]["regularizers"][0]["per"] = "sample"
    run(tree, compile=True, save_every=0)
    steps = [step for step in keeps if len(step) == 8]  # others are of the cost trace
    assert len(steps) == 12 and len(set().union(*steps)) > 2
    assert any(len(set(step)) > 1 for step in steps)  # mixed in a batch
    assert len({tuple(sorted(step)) for step in steps}) > 3  # and mixed anew in every step


@pytest.mark.slow
def test_nested_dropout_is_one_graph_for_every_length(run, compiled, keeps):
    train_on_mixed_lengths(run, keeps, TINY)
    assert [phase.frame_count for phase in compiled] == [1]
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.slow
def test_network_dropout_is_part_of_the_graph(run, compiled, keeps):
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["encoder"]["transformer"] |= {"dropout": 0.2, "depth": 2}
    train_on_mixed_lengths(run, keeps, tree | {"accumulate": 2})
    assert [phase.frame_count for phase in compiled] == [1]
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_everything_with_state_is_one_graph_a_module(run, compiled, keeps, accumulate):
    """Tail token drop, perturbation, an EMA codebook with revival, a discriminator."""
    train_on_mixed_lengths(run, keeps, STATEFUL | {"accumulate": accumulate})
    assert [phase.frame_count for phase in compiled] == [1, 1]
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]


@pytest.mark.slow
def test_clusters_are_one_graph_for_all_micro_batches(run, compiled, keeps):
    tree = copy.deepcopy(TINY)
    quantizer = {"kind": "vq", "codebook_size": 16, "dim": 4, "cluster": True}
    tree["task"]["tokenizer"]["quantizer"] = quantizer
    train_on_mixed_lengths(run, keeps, tree | {"accumulate": 2})
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_the_fixture_sees_a_shape_that_varies(compiled, make_tokenizer):
    model = torch.compile(make_tokenizer())
    model(Batch(torch.arange(4), torch.rand(4, 3, 8, 8)))
    with pytest.raises(torch._dynamo.exc.RecompileError):
        model(Batch(torch.arange(3), torch.rand(3, 3, 8, 8)))
