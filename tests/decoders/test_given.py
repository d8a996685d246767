"""Clips with tokens of each time step: shorter clips, prefixes, given first frames."""

import pytest
import torch

from tests.support.clip_flow import clip_tokenizer, clip_tree
from vistok.config import ConfigError, validate
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.layers.flow.prefix import mean_of_others
from vistok.losses.flow import FlowConfig, FlowLoss
from vistok.tokenizer import TokenizerConfig

KINDS = ("time_block_causal", "time_block_causal_last", "causal", "full")


def clips(count=2):
    return torch.rand(count, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_tokens_of_a_shorter_clip_are_those_of_its_steps(attention):
    tokenizer = clip_tokenizer({"attention": attention})
    x = tokenizer.input_space(clips())
    whole, short = tokenizer.encoder(x).values, tokenizer.encoder(x[:, :, :2])
    assert short.grids == ((4,), (4,)) and short.values.shape == (2, 8, 2)
    same = torch.allclose(whole[:, :8], short.values, atol=1e-5)
    assert same == (attention != "full")


@torch.no_grad()
def test_a_prefix_is_of_each_time_step():
    tokenizer = clip_tokenizer()
    spec = tokenizer.spec()
    assert spec.prefix == "per_block" and spec.blocks == ((4,),) * 3
    tokens = tokenizer.encode(clips(), torch.tensor([[1, 2, 4], [4, 1, 2]]))
    assert tokens.kept().sum(1).tolist() == [7, 7]
    other = tokens.indices.clone()
    other[~tokens.kept()] = 1  # what is cut off plays no part
    again = type(tokens)(spec, indices=other, keep=tokens.keep)
    assert torch.equal(tokenizer.decode(tokens), tokenizer.decode(again))


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("how", ["clean", "sdedit"])
def test_given_frames_are_held_and_their_tokens_hidden(attention, how):
    tokenizer = clip_tokenizer(attention=attention)
    tokens, frames = tokenizer.encode(clips(), 2), clips()[:, :, :1]
    settings = {"given": how}
    made = tokenizer.decode(tokens, Condition(frames=frames), sampling=settings)
    held = torch.allclose(made[:, :, :1], frames, atol=1e-6)
    assert held == (how == "clean")
    other = tokens.indices.clone()
    other[:, :4] = 1
    again = type(tokens)(tokens.spec, indices=other, keep=tokens.keep)
    found = tokenizer.decode(again, Condition(frames=frames), sampling=settings)
    torch.testing.assert_close(found, made)
    assert not torch.allclose(made, tokenizer.decode(tokens, sampling=settings), atol=1e-3)


def test_training_draws_given_frames_and_leaves_them_out_of_the_loss():
    tokenizer = clip_tokenizer()
    index = torch.arange(400)
    drawn = tokenizer.decoder.draw(index, Rng(0, "decoder"), Progress(0, 1))
    share = torch.bincount(drawn.given, minlength=3) / 400
    torch.testing.assert_close(share, torch.tensor([0.4, 0.3, 0.3]), atol=0.08, rtol=0)
    assert 0.4 < (drawn.given_time > 0).float().mean() < 0.6 and drawn.given_time.max() <= 0.02
    clean, noise = torch.zeros(2, 3, 3, 8, 8), torch.ones(2, 3, 3, 8, 8)
    given = torch.tensor([1, 0])
    draws = PartDraws(
        noise=noise, time=torch.full((2,), 0.5), given=given, given_time=torch.tensor([0.01, 0.0])
    )
    noisy = tokenizer.decoder.corrupt(clean, draws)
    assert torch.equal(noisy.x[0, 0, :, 0, 0], torch.tensor([0.01, 0.5, 0.5]))
    assert torch.equal(noisy.given, given)
    errors = torch.ones(2, 3, 3, 8, 8)
    errors[0, :, 0] = 100.0  # of the given frame
    errors[1] = 3.0
    assert float(mean_of_others(errors, given)) == 2.0
    values = torch.zeros(2, 12, 2)
    decoded = tokenizer.decoder(values, None, None, noisy)
    seen = lambda values: tokenizer.decoder(values, None, None, noisy).prediction
    other = values.clone()
    other[0, :4] = 5.0  # tokens of the given step
    torch.testing.assert_close(seen(other), decoded.prediction)
    one = torch.zeros(2, 3, 3, 8, 8)
    whole = Reconstruction(
        None, one, decoded, None, None, target_in_space=clean, noisy=noisy,
        draws=Draws(parts={"decoder": draws}),
    )  # fmt: skip
    loss = FlowLoss(FlowConfig())(whole, Batch(torch.arange(2)), Progress(0, 1))["flow"]
    expected = (decoded.prediction - 1).square().mean((1, 3, 4))
    torch.testing.assert_close(loss, (expected[0, 1:].mean() + expected[1].mean()) / 2)


@torch.no_grad()
def test_the_unconditional_prediction_obeys_the_order():
    """With null last no value matters to it; with missing last, the missing ones are still told."""
    present = (torch.arange(4) < 2).repeat(2, 3)
    condition = Condition(null=torch.ones(2, dtype=torch.bool), given=torch.tensor([1, 1]))
    values = torch.zeros(2, 12, 2)
    rows = {}
    for order in (("missing", "given", "null"), ("null", "given", "missing")):
        decoder = clip_tokenizer(overwrites=order).decoder
        rows[order[0]] = decoder.embed(values, present, condition).values
        tokens = {name: getattr(decoder, f"{name}_token") for name in ("null", "given", "missing")}
    assert torch.equal(rows["missing"], tokens["null"].expand(2, 12, -1))
    expected = [tokens["given"]] * 2 + [tokens["missing"]] * 2
    expected += ([tokens["null"]] * 2 + [tokens["missing"]] * 2) * 2
    assert torch.equal(rows["null"][0], torch.stack(expected))


REFUSED = {
    "steps": ({"latents": {"count": 4, "steps": 2}}, {}, "latents.steps=2"),
    "mask": ({"attention": "causal_latents"}, {}, "causal_latents is of one list"),
    "earlier": ({"earlier": {}}, {}, "earlier is a key of"),
    "no steps": ({"latents": {"count": 12}}, {}, "is of tokens in time steps"),
    "lengths": ({}, {"given": {"lengths": [3], "shares": [1.0]}}, "clips have 3 frames"),
    "shares": ({}, {"given": {"lengths": [0, 1], "shares": [0.5, 0.1]}}, "together 1"),
    "order": ({}, {"overwrites": ["null", "given"]}, "missing, given and null in an order"),
    "given": ({}, {"time_steps": False, "value_positions": None}, "given needs time_steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_settings_are_refused_in_a_line(name, fails):
    encoder, decoder, said = REFUSED[name]
    with fails((ConfigError, InputError), said):
        from vistok.tokenizer import Tokenizer

        Tokenizer(validate(TokenizerConfig, clip_tree(encoder, **decoder)))


def test_frames_that_do_not_fit_are_refused_in_a_line(fails):
    tokenizer = clip_tokenizer()
    tokens = tokenizer.encode(clips())
    for frames in (clips(), clips()[:, :, :1, :4], clips(1)[:, :, :1]):
        with fails(InputError, "condition.frames have shape", "fewer frames than the 3"):
            tokenizer.decode(tokens, Condition(frames=frames))
