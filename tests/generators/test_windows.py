"""Windows of codes as one position (Token-Shuffle): likelihood, sampling, what a window sees."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from tests.support.autoregressive import make, tokens_of
from tests.support.generators import lively
from vistok.core.records import Condition
from vistok.generators import load_generator
from vistok.generators.windows import windows_of
from vistok.tokens import Tokens

INDEX = torch.arange(3)
LABEL = Condition(label=torch.tensor([0, 1, 1]))


def windowed(blocks=((4, 6),), vocab=(5,), window=2, **changes):
    return make(vocab, blocks=blocks, window=window, **changes)


def test_windows_and_their_codes_follow_in_raster_order():
    assert windows_of((4, 4), 2).tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15],
    ]  # fmt: skip
    assert torch.equal(windows_of((2, 3), 1).flatten(), torch.arange(6))


@pytest.mark.parametrize("vocab", [(3,), (2, 2), (2, 3)], ids=str)
def test_the_likelihood_is_a_distribution(vocab):
    """One of two windows, so that the codes of the second depend on the first."""
    model = windowed(((2, 4),), vocab)
    assert model.embed.reduce.out_features * 4 == model.config.transformer.width
    first = model(tokens_of(model), Condition(label=torch.zeros(5, dtype=torch.long)))
    nats = math.log(math.prod(vocab))
    assert first["loss"].item() == pytest.approx(nats, abs=1e-6)  # starts as uniform codes
    model = lively(model)
    size = math.prod(vocab)
    digits = torch.tensor(list(itertools.product(range(size), repeat=4)))
    flat = torch.randint(size, (1, 8), generator=torch.Generator().manual_seed(0))
    flat = flat.expand(len(digits), 8).clone()
    flat[:, model.windows[1]] = digits
    codes = torch.stack([flat % vocab[0], flat // vocab[0]][: len(vocab)], -1)
    given = Tokens.of(model.spec, codes)
    label = Condition(label=torch.zeros(len(digits), dtype=torch.long))
    nats = model.nats(given, label).double()
    second = nats[:, model.windows[1]].sum(-1)
    assert second.neg().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert second.std() > 0.05 and nats[:, model.windows[0]].std(0).max() < 1e-6


def test_a_window_sees_those_before_it_alone():
    model = lively(windowed())
    tokens, label = tokens_of(model), Condition(label=torch.zeros(5, dtype=torch.long))
    before = model.nats(tokens, label)
    for number in (0, 2):
        other = Tokens(model.spec, tokens.indices.clone())
        cell = int(model.windows[number, 1])
        other.indices[:, cell] = (other.indices[:, cell] + 1) % 5
        moved = (model.nats(other, label) - before).abs().amax(0) > 1e-5
        own = torch.zeros(24, dtype=torch.bool)
        own[cell] = True  # its own probability; the rest of its window knows nothing of it
        own[model.windows[number + 1 :].flatten()] = True
        assert torch.equal(moved, own)


@pytest.mark.parametrize("changes", [{}, {"positions": "learned"}, {"regroup": (2, 3)}], ids=str)
def test_sampling_and_files(tmp_path, changes):
    model = lively(windowed(vocab=(6,), **changes)).eval()
    sample = lambda given=LABEL, rows=INDEX, **settings: (
        model.sample(given, index=rows, seed=3, sampling={"guidance": 2.0, **settings}).indices
    )
    whole = sample()
    assert model.passes.tolist() == [6, 6, 6]  # one for each window of four
    assert torch.equal(whole, sample(cache=False))  # the cache is the full forward
    assert torch.equal(whole, sample(fast=False))
    assert torch.equal(whole[1:2], sample(LABEL.select([1]), INDEX[1:2]))
    mask = torch.rand(3, 24, generator=torch.Generator().manual_seed(0)) < 0.4
    known = Tokens(model.spec, (whole + 1) % 6)
    some = sample(replace(LABEL, known=known, known_mask=mask))
    assert torch.equal(some[mask], known.indices[mask])
    taken = replace(LABEL, known=Tokens(model.spec, some), known_mask=torch.ones_like(mask))
    assert torch.equal(sample(taken), some)
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.config == model.config
    nats = [one.nats(Tokens(model.spec, some), LABEL) for one in (model, loaded)]
    assert torch.equal(*nats)


def test_precision_is_that_of_the_settings():
    model, seen = windowed(), set()
    model.transformer.register_forward_pre_hook(lambda _, given: seen.add(given[0].dtype))
    model.sample(LABEL, index=INDEX, sampling={"precision": "bf16"})
    assert seen == {torch.bfloat16}


def test_greedy_codes_are_the_likeliest():
    """No other code of a window is likelier, given the windows before."""
    model = lively(windowed()).eval()
    codes = model.sample(LABEL, index=INDEX, sampling={"temperature": 0.0})
    best = model.nats(codes, LABEL)
    for cell in model.windows[3].tolist():
        for change in range(1, 5):
            other = Tokens(model.spec, codes.indices.clone())
            other.indices[:, cell] = (other.indices[:, cell] + change) % 5
            assert (model.nats(other, LABEL)[:, cell] >= best[:, cell]).all()


def test_window_1_is_the_plain_model():
    torch.manual_seed(0)
    plain = lively(make((5,), blocks=((4, 6),)))
    torch.manual_seed(0)
    one = lively(windowed(window=1, window_blocks=3))
    assert plain.state_dict().keys() == one.state_dict().keys()
    tokens, label = tokens_of(plain), Condition(label=torch.zeros(5, dtype=torch.long))
    one.load_state_dict(plain.state_dict())
    assert torch.equal(plain.nats(tokens, label), one.nats(tokens, label))
    codes = [model.eval().sample(LABEL, index=INDEX).indices for model in (plain, one)]
    assert torch.equal(*codes)


def test_tokens_without_such_windows_are_refused(fails):
    words = "kind=autoregressive with window=2 merges codes of one 2D grid whose sides 2 divides"
    for blocks in (((4,),), ((3, 4),), ((2, 2), (2, 2))):
        with fails(ValueError, words):
            windowed(blocks)
    with fails(ValueError, "window=3 with transformer.width=16: its 9 codes share the width"):
        windowed(((3, 3),), window=3)
    with fails(ValueError, "sampling.jacobi with window=2: Jacobi passes draft single codes"):
        windowed().sample(LABEL, index=INDEX, sampling={"jacobi": {}})
