"""Sampling settings of each factor: numbers, lists, and what a list changes."""

import pytest
import torch

import vistok.generators.sequential as sequential
from tests.support.intra import LABEL, made
from vistok.config import validate
from vistok.generators.sequential import SequentialSampling

INDEX = torch.arange(3)


def sampled(model, **settings) -> torch.Tensor:
    return model.sample(LABEL, index=INDEX, sampling=settings).indices


def test_a_list_gives_each_factor_its_own_numbers(monkeypatch):
    model = made({}, (4, 16))
    given = {"temperature": [0.5, 2.0], "guidance": [1.0, 3.0], "top_k": [2, 0], "min_p": [0, 0.1]}
    seen, scales = [], []
    choose, guide = sequential.choose, sequential.guide
    look = lambda *args: (seen.append(args[2]), choose(*args))[1]
    scale = lambda *args: (scales.append(args[1]), guide(*args))[1]
    with monkeypatch.context() as patch:
        patch.setattr(sequential, "choose", look)
        patch.setattr(sequential, "guide", scale)
        sampled(model, **given)
    assert {(one.temperature, one.top_k, one.min_p) for one in seen[::2]} == {(0.5, 2, 0)}
    assert {(one.temperature, one.top_k, one.min_p) for one in seen[1::2]} == {(2.0, 0, 0.1)}
    assert set(scales[::2]) == {1.0} and set(scales[1::2]) == {3.0}


def test_equal_numbers_are_one_number():
    model = made({}, (4, 16))
    assert torch.equal(sampled(model, guidance=[2.0, 2.0]), sampled(model, guidance=2.0))
    assert torch.equal(sampled(model, temperature=[0.0, 0.0]), sampled(model, temperature=0.0))
    assert torch.equal(sampled(model, guidance=[1, 1]), sampled(model))  # no guidance at all
    assert not model.settings({"guidance": [1, 1]}).guided
    assert model.settings({"guidance": [1, 2]}).guided
    hot = sampled(model, temperature=[0.0, 1.0])
    assert not torch.equal(hot, sampled(model)) and not torch.equal(
        hot, sampled(model, temperature=0.0)
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": [1, 1, 1]}, r"temperature=\[1.0, 1.0, 1.0\]: 3 numbers for 2 factors"),
        ({"guidance": [2]}, r"guidance=\[2.0\]: 1 numbers for 2 factors.*one number, or 2"),
        ({"temperature": [1, -1]}, "temperature.1: got -1"),
        ({"temperature": 1e-9}, "temperature: got 1e-09; expected 0 .greedy. or 0.0001 or more"),
        ({"top_p": []}, r"top_p: got \[\]"),
        ({"top_k": "many"}, "top_k: got 'many'; expected a whole number"),
    ],
)
def test_lists_that_do_not_fit_are_one_line(fails, given, words):
    with fails(ValueError, words):
        made({}, (4, 16)).settings(given)


def test_bits_have_no_share_in_any_list(fails):
    model = made({}, (2,) * 6, head=None)
    with fails(ValueError, "top_k, top_p and min_p have no meaning for independent bits"):
        model.settings({"top_p": [1, 1, 1, 1, 1, 0.5]})


def test_settings_survive_being_written():
    given = SequentialSampling(guidance=(1.9, 2.0), temperature=(1.1, 1.0), top_k=3)
    assert validate(SequentialSampling, given.model_dump(mode="json"), "here") == given
