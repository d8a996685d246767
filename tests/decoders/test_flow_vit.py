"""The flow decoder on a ViT: what is hidden, the unconditional branch, sampling in one batch."""

import itertools

import pytest
import torch

from tests.support.latent_flow import latent_tree, wake
from vistok.config import validate
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition, Noisy
from vistok.core.schedules import Progress
from vistok.decoders.flow import FlowDecoder
from vistok.layers.flow.guidance import Guidance
from vistok.tokenizer import Tokenizer, TokenizerConfig

ALL = torch.ones(3, dtype=torch.bool)


def made(**decoder) -> Tokenizer:
    torch.manual_seed(0)
    tree = latent_tree(pixels=True, **decoder)
    if decoder.get("null") == "none" or decoder.get("missing") == "refuse":
        tree["regularizers"] = []
    return wake(Tokenizer(validate(TokenizerConfig, tree)).eval())


def inputs(tokenizer, count=3):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, 32, 32, generator=generator)
    values = torch.randn(count, 4, 2, generator=generator)
    return Noisy(x, torch.linspace(0.2, 0.9, count)), values


@torch.no_grad()
@pytest.mark.parametrize("attention", ["full", "causal", "causal_values"])
def test_a_dropped_value_equals_a_shorter_sequence(attention):
    whole = made(missing="drop", attention=attention)
    noisy, values = inputs(whole)
    kept = torch.arange(4) < torch.tensor([[2]] * 3)
    short = made(missing="drop", attention=attention).decoder
    short.count = 2
    short.value_positions.grid = (2,)  # the first rows of the same table
    short.mask = short._mask()
    found = whole.decoder(values, kept, None, noisy).prediction
    torch.testing.assert_close(found, short(values[:, :2], None, None, noisy).prediction)
    other = values.clone()
    other[:, 2:] = 9.0
    torch.testing.assert_close(found, whole.decoder(other, kept, None, noisy).prediction)


@torch.no_grad()
@pytest.mark.parametrize("null", ["learned", "zero", "single", "none"])
def test_the_unconditional_prediction_sees_no_value(null):
    tokenizer = made(null=null)
    decoder = tokenizer.decoder
    noisy, values = inputs(tokenizer)
    nothing = decoder.embed_nothing(values, None)
    plain = decoder.velocity(noisy, nothing.values, nothing.present, None)
    other = decoder.embed_nothing(values + 1, None)
    assert torch.equal(plain, decoder.velocity(noisy, other.values, other.present, None))
    if null == "none":  # as many missing values
        assert not decoder.reads_null
        absent = torch.zeros(3, 4, dtype=torch.bool)
        torch.testing.assert_close(plain, decoder(values, absent, None, noisy).prediction)
        return
    for present in (None, torch.arange(4).expand(3, 4) < 1):  # it wins over the length
        found = decoder(values, present, Condition(null=ALL), noisy).prediction
        torch.testing.assert_close(found, plain)
    mixed = Condition(null=torch.tensor([True, False, True]))
    found = decoder(values, None, mixed, noisy).prediction
    torch.testing.assert_close(found[0], plain[0])
    torch.testing.assert_close(found[1], decoder(values, None, None, noisy).prediction[1])
    assert not torch.allclose(found[1], plain[1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize(
    "guidance",
    [{"scale": 1.0}, {"scale": 3.0}, {"kind": "apg", "scale": 3.0, "interval": [0.3, 0.8]}],
)
def test_sampling_in_one_batch_is_two_passes_at_every_time(solver, guidance):
    tokenizer = made()
    decoder, settings = tokenizer.decoder, {"steps": 4, "solver": solver, "guidance": guidance}
    settings = tokenizer.settings(settings)
    start, values = inputs(tokenizer)
    x = start.x
    guide, null = Guidance(settings.guidance), Condition(null=ALL)
    low, high = settings.guidance.interval

    def velocity(x, t):
        noisy = Noisy(x, torch.full((3,), t))
        with_values = decoder(values, None, None, noisy).prediction
        if settings.guidance.scale == 1 or not low <= t <= high:
            return with_values
        return guide(with_values, decoder(values, None, null, noisy).prediction)

    expected, grid = x, [1.0, 0.75, 0.5, 0.25, 0.0]
    for now, then in itertools.pairwise(grid):
        step, slope = then - now, velocity(expected, now)
        if solver == "midpoint":
            slope = velocity(expected + step / 2 * slope, now + step / 2)
        elif solver == "heun" and then > 0:
            slope = (slope + velocity(expected + step * slope, then)) / 2
        expected = expected + step * slope
    found = decoder.sample(values, None, None, x, settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kept", [[1, 1, 2], [4, 4, 4], [1, 4, 2]])
def test_equal_rows_are_one_row_that_counts_for_them(kept, scale):
    """The sampler's short sequences give what whole ones do."""
    tokenizer = made()
    decoder, settings = tokenizer.decoder, tokenizer.settings({"guidance": {"scale": scale}})
    start, values = inputs(tokenizer)
    present = torch.arange(4) < torch.tensor(kept)[:, None]
    lengths = []
    decoder.transformer.blocks[0].register_forward_hook(lambda *a: lengths.append(a[1][0].shape))
    found = decoder.sample(values, present, None, start.x, settings)
    rows = {length - decoder.cells for _, length, _ in lengths}
    assert rows <= {min(max(kept) + 1, 4), 1}
    whole = FlowDecoder.embed_alone, FlowDecoder.embed_guided
    decoder.embed_alone, decoder.embed_guided = (one.__get__(decoder) for one in whole)
    expected = decoder.sample(values, present, None, start.x, settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_values_are_embedded_once_per_image():
    tokenizer, calls = made(), []
    tokenizer.decoder.embed_values.register_forward_hook(lambda *_: calls.append(1))
    tokens = tokenizer.encode(torch.rand(2, 3, 32, 32))
    tokenizer.decode(tokens, sampling={"steps": 7})
    assert len(calls) == 1


def test_samples_do_not_depend_on_the_batch():
    tokenizer = made()
    pixels = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    tokens, index = tokenizer.encode(pixels), torch.tensor([4, 7, 1, 0, 9])
    whole = tokenizer.decode(tokens, seed=5, index=index)
    parts = [
        tokenizer.decode(tokens.select(rows), seed=5, index=index[rows])
        for rows in (torch.tensor([0]), torch.tensor([1, 2, 3]), torch.tensor([4]))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    assert not torch.allclose(tokenizer.decode(tokens, seed=6, index=index), whole, atol=1e-2)
    # As in a training's evaluation: seed 0, keyed by the sample's number.
    seen = tokenizer(Batch(index, pixels=pixels)).pixels
    expected = tokenizer.decode(tokens, seed=0, index=index)
    torch.testing.assert_close(seen.clamp(0, 1), expected, atol=1e-5, rtol=0)


def test_training_draws_reach_the_decoder():
    """Every parameter is in the graph, whatever was drawn; null samples ignore their values."""
    tokenizer = made().train()
    batch = Batch(torch.arange(8), pixels=torch.rand(8, 3, 32, 32))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 1))
    assert 0 < int(draws.null.sum()) < 8 and len(draws.part("decoder").time) == 8
    for null in (draws.null, torch.zeros(8, dtype=torch.bool)):
        own = Draws(draws.keep, null=null, parts=draws.parts)
        result = tokenizer(batch, own, pixels=False)
        tokenizer.zero_grad()
        result.decoded.prediction.square().mean().backward()
        assert all(p.grad is not None for p in tokenizer.decoder.parameters())
        assert bool(tokenizer.decoder.null_token.grad.any()) == bool(null.any())


def test_options_that_exclude_each_other(fails):
    with fails(ValueError, "modulation_kinds=3", "expected 1, or 2"):
        made(transformer={"width": 16, "heads": 2, "modulation_kinds": 3})
    with fails(ValueError, "transformer.modulation=8", "leave it out"):
        made(transformer={"width": 16, "heads": 2, "modulation": 8})
    with fails(ValueError, "missing: refuse"):
        refusing = made(missing="refuse").decoder
        noisy, values = inputs(None)
        refusing(values, torch.zeros(3, 4, dtype=torch.bool), None, noisy)
