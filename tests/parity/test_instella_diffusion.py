"""Instella-T2I's diffusion over bits: noise, network, losses, and both samplers."""

from __future__ import annotations

import pytest
import torch

import vistok.generators.bit_diffusion as bit_diffusion
from tests.support.instella import model_of, text_of
from vistok.core.draws import Draws, PartDraws
from vistok.generators.bit_diffusion import noise_probability
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASE = "instella_diffusion"
PROTOCOLS = {"p1": "renoise", "p2": "posterior"}


@pytest.fixture
def model(recording):
    return model_of(recording, "diff")


def imposed(probability: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Uniform numbers that are below `probability` exactly where `bits` are 1."""
    return torch.where(bits > 0.5, probability / 2, (1 + probability) / 2)


def test_noise_and_network(recording, model):
    io, condition = recording.io, text_of(recording)
    probability = noise_probability(io["code"], io["t"])
    recording.close(probability, "noise_probability")
    with torch.no_grad():
        output = model.run(io["x_t"], io["t"], condition)
    recording.close(output, "model_output")
    recording.close(model.clean_logits(io["model_output"], io["x_t"]), "x0_logits")
    part = PartDraws(time=io["t"], uniform=imposed(probability, io["x_t"]))
    with torch.no_grad():
        tokens = Tokens.of(model.spec, io["code"].long())
        found = model(tokens, condition, Draws(parts={"generator": part}))
    recording.close(found["loss"], "loss")
    recording.close(found["bit_accuracy"] * 100, "bit_accuracy_percent")


def alone(recording, model, row):
    """The condition of one sample; its unconditional text is the model's empty one."""
    samples = len(recording.io["p1_start"])
    given = text_of(recording)
    model.texts.fill(given.text[samples + row], given.text_mask[samples + row])
    return given.select([row])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_steps_of_sampling(recording, model, name):
    io, settings = recording.io, model.settings({"protocol": PROTOCOLS[name]})
    draws = io[f"{name}_step_draw"]
    states = [io[f"{name}_start"], *draws]
    found = []
    for row in range(len(states[0])):
        condition = alone(recording, model, row)
        with torch.no_grad():
            steps = [
                model.next_probability(x[row : row + 1], i, condition, settings)
                for i, x in enumerate(states)
            ]
        found.append(torch.cat(steps))
    found = torch.stack(found, 1)  # [S, B, L, C]
    recording.close(found[:-1], f"{name}_step_probability")
    assert torch.equal((found[-1] > 0.5).float(), io[f"{name}_final"])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sampling_from_end_to_end(recording, model, name, monkeypatch):
    io = recording.io
    for row in range(len(io[f"{name}_start"])):
        condition = alone(recording, model, row)
        numbers = [imposed(torch.tensor(0.5), io[f"{name}_start"][row])]
        for p, bits in zip(io[f"{name}_step_probability"], io[f"{name}_step_draw"], strict=True):
            numbers.append(imposed(p[row], bits[row]))
        with monkeypatch.context() as patch:
            fed = lambda rng, *args, numbers=numbers: numbers[rng.step][None]
            patch.setattr(bit_diffusion.Rng, "uniform", fed)
            sampled = model.sample(
                condition, index=torch.tensor([row]), sampling={"protocol": PROTOCOLS[name]}
            )
        assert torch.equal(sampled.indices[0].float(), io[f"{name}_final"][row])


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None
    again, written = to_official(model, "instella_t2i")
    assert again.keys() == weights.keys()
    twin = from_official("instella_t2i", again, written)
    assert twin.config == model.config and twin.spec == model.spec
