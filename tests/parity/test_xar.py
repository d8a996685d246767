"""xAR against OliverRensu/xAR: cells, condition, velocity, loss, samples of recorded noise."""

import pytest
import torch

from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASE = "xar"
_OWN = {"guidance_scale": "cfg", "sampler_steps": "num_steps"}  # names of the recordings


def official(config):
    """Arguments of the official constructor and sampling; one share of dropout is of both kinds."""
    named = {_OWN.get(key, key): value for key, value in config.items() if key != "dropout"}
    share = config.get("dropout")
    return named if share is None else {**named, "attn_dropout": share, "proj_dropout": share}


@pytest.fixture
def model(recording):
    return from_official("xar", recording.weights, official(recording.config))


def tokens_of(model, latents):
    """Tokens of recorded latents [B, C, h, w], which are scaled already."""
    values = latents.flatten(2).transpose(1, 2) / model.scale + model.shift
    return Tokens(model.spec, values=values)


def drawn(recording, model):
    """The recorded draws: times are listed cell by cell, noise in the order of the cells."""
    io, samples = recording.io, len(recording.io["labels"])
    time = io["t"].float().view(len(model.cells), samples).T
    own = PartDraws(time=time, noise=io["noise"].flatten(1, 2))
    null = io["label_drop_draw"] < recording.config.get("label_drop_prob", 0.1)
    return Draws(null=null, parts={"generator": own})


@torch.no_grad()
def test_cells_condition_velocity_and_loss(recording, model):
    io, draws = recording.io, drawn(recording, model)
    condition, own = Condition(label=io["labels"]), draws.part("generator")
    clean = model.scaled(tokens_of(model, io["latents"]))
    recording.close(clean, "cells")
    vector = model.vector(condition, len(clean), draws.null)
    recording.close((vector[:, None] + model.time(own.time)).transpose(0, 1), "condition")
    each = own.time[:, model.level, None]
    velocity = model.run((1 - each) * clean + each * own.noise, own.time, vector, slice(None))
    recording.close(velocity, "velocity")
    found = model(tokens_of(model, io["latents"]), condition, draws)
    recording.close(found["loss"], "loss")


@pytest.mark.parametrize("cache", [True, False])
def test_samples_of_recorded_noise(recording, model, cache):
    io = recording.io
    starts, steps = io["sample_init_noise"], io["sample_step_noise"]
    noise = lambda cell, step: starts[cell] if step == 0 else steps[cell, step - 1]
    condition, settings = Condition(label=io["labels"]), model.settings({"cache": cache})
    with torch.no_grad():
        sampled = model.walked(condition, len(io["labels"]), noise, settings)
    latents = (sampled.check().values - model.shift) * model.scale
    recording.close(latents.transpose(1, 2), "sample_latents")


def test_weights_go_back_bit_for_bit(recording, model):
    state = recording.weights
    again, written = to_official(model)
    assert written == official(recording.config) and again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    model.origin = None  # as if it had been trained here
    exported, said = to_official(model, "xar")
    assert exported.keys() == state.keys()
    for key, tensor in state.items():  # rotary tables are made anew
        torch.testing.assert_close(exported[key], tensor, atol=1e-6, rtol=0)
    twin = from_official("xar", exported, said)
    assert twin.config == model.config and twin.spec == model.spec
