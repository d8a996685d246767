"""MaskGIT on 1D tokens against bytedance/1d-tokenizer: masks, logits, loss, whole sampling runs."""

import pytest
import torch

from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.generators.orders import mask_of
from vistok.generators.unmasking import StepNoise
from vistok.pretrained import from_official, to_official
from vistok.pretrained.generators.maskgit import sampling_tree
from vistok.tokens import Tokens

CASES = ("maskgit", "maskgit_uvit")
DEFAULTS = {  # of the official `generate`, for what a run does not name
    "guidance_scale": 3.0,
    "guidance_decay": "constant",
    "guidance_scale_pow": 3.0,
    "randomize_temperature": 4.5,
    "softmax_temperature_annealing": False,
    "num_sample_steps": 8,
}


@pytest.fixture
def model(recording):
    return from_official("maskgit", recording.weights, recording.config)


def test_masks(recording, model):
    io = recording.io
    mask = mask_of(io["mask_timesteps"], io["mask_rand"], model.config.masks)
    assert torch.equal(mask, io["mask"])
    hidden = torch.where(mask, model.spec.vocab[0], io["tokens"])
    assert torch.equal(hidden, io["masked_tokens"])


@torch.no_grad()
def test_logits_and_loss(recording, model):
    io, label = recording.io, Condition(label=recording.io["class_ids"])
    codes, mask = io["masked_tokens"][..., None], io["mask"]
    codes = codes.masked_fill(mask[..., None], 0)
    recording.close(model.logits(codes, mask, label)[0], "logits_cond")
    recording.close(model.logits(codes, mask, Condition())[0], "logits_uncond")
    null = torch.ones(len(codes), dtype=torch.bool)
    recording.close(model.logits(codes, mask, label, null)[0], "logits_uncond")
    tokens = Tokens.of(model.spec, io["tokens"][..., None])
    found = model(tokens, label, Draws(null=~null, parts={"generator": PartDraws(mask=mask)}))
    recording.close(found["loss"], "mlm_loss")
    recording.close(found["masked_accuracy"], "mlm_acc")


@torch.no_grad()
def test_sampling_runs(recording, model):
    io, label = recording.io, Condition(label=recording.io["class_ids"])
    for number, given in enumerate(recording.case["run"]["generate"]):
        run = DEFAULTS | given
        settings = model.settings(
            sampling_tree(
                steps=run["num_sample_steps"],
                scale=run["guidance_scale"],
                decay=run["guidance_decay"],
                power=run["guidance_scale_pow"],
                noise=run["randomize_temperature"],
                annealing=run["softmax_temperature_annealing"],
            )
        )

        def noise(step, number=number):
            name = f"gen{number}_step{step}_u"
            return StepNoise(io[f"{name}_logits"], io[f"{name}_conf"])

        found = model.unmasked(label, len(label.label), noise, settings)
        assert torch.equal(found.indices[..., 0].long(), io[f"gen{number}_ids"]), given


def test_weights_go_back_bit_for_bit(recording, model):
    weights = recording.weights
    state, written = to_official(model)
    assert written == recording.config and state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here: rows that nobody reads are zero
    again, written = to_official(model, "maskgit")
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in weights.items()}
    twin = from_official("maskgit", again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (twin.spec.blocks, twin.spec.vocab) == (model.spec.blocks, model.spec.vocab)
    same = twin.config.model_dump()
    assert same["trunk"] == model.config.trunk.model_dump()
    assert same["condition"] == model.config.condition.model_dump()
