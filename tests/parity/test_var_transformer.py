"""VAR against FoundationVision/VAR: inputs of scales, logits, loss, greedy samples and images."""

import pytest
import torch

from tests.parity.test_var_vqvae import scales
from vistok.core.draws import Draws
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.pretrained.table import FAMILIES
from vistok.tokens import Tokens

CASE = "var_transformer"
CFG = 1.5  # of the greedy samples, unless the recording says otherwise


def split(recording):
    """State dicts of the VQ-VAE and of the generator, and the official config of the latter."""
    parts = {"vae": {}, "var": {}}
    for key, tensor in recording.weights.items():
        part, name = key.split(".", 1)
        parts[part][name] = tensor
    config = {"vae_kwargs": recording.config["vae"], **recording.config["var"]}
    return parts["vae"], parts["var"], config


@pytest.fixture
def model(recording):
    vae, state, config = split(recording)
    return from_official("var", FAMILIES["var"].completed(state, vae), config)


@torch.no_grad()
def test_logits_with_recorded_label_dropout(recording, model):
    io, share = recording.io, recording.config["var"].get("cond_drop_rate", 0.1)
    condition = Condition(label=io["label"])
    tokens = Tokens.of(model.spec, scales(io, "gt_indices")[..., None])
    recording.close(model.inputs(tokens.indices), "var_input")
    draws = Draws(null=io["drop_draw"] < share)
    hidden = model.eval().hidden(tokens.indices.long(), condition, draws.null)
    recording.close(model.head.out(hidden), "logits")
    recording.close(model(tokens, condition, draws)["loss"], "loss")


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_samples_and_their_images(recording, model, cache):
    io = recording.io
    cfg = recording.case.get("run", {}).get("cfg", CFG)
    sampling = {"temperature": 0.0, "guidance": 1 + cfg, "guidance_schedule": "linear"}
    sampling |= {"cache": cache, "top_k": 0, "top_p": 1.0}
    index, condition = torch.arange(len(io["label"])), Condition(label=io["label"])
    sampled = model.sample(condition, index=index, sampling=sampling)
    assert torch.equal(sampled.indices[..., 0].long(), scales(io, "greedy_indices"))
    vae, _, config = split(recording)
    tokenizer = from_official("var_vqvae", vae, config["vae_kwargs"])
    assert tokenizer.spec() == model.spec
    recording.close(tokenizer.decode(sampled), "greedy_image")


def test_weights_go_back_bit_for_bit(recording, model):
    vae, state, config = split(recording)
    again, written = to_official(model)
    assert written == config and again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    model.origin = None  # as if it had been trained here
    exported, said = to_official(model, "var")
    assert exported.keys() == state.keys()
    complete = FAMILIES["var"].completed(exported, vae)
    twin = from_official("var", complete, said)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours) and twin.spec == model.spec
    assert twin.config.model_copy(update={"sampling": model.config.sampling}) == model.config
