"""RAR against bytedance/1d-tokenizer: token space, logits in any order, guided sampling."""

import pytest
import torch

from tests.support.rar import chosen_from, logits, official_tree
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASE = "rar"


@pytest.fixture
def model(recording):
    config = official_tree(recording.config["model"], recording.case["run"])
    return from_official("rar", recording.weights, config)


def test_the_token_space(recording, model):
    """Ids of classes are rows of the official table; ours are rows of a table of their own."""
    io, table = recording.io, recording.weights["embeddings.weight"]
    dropped = io["drop_uniform"] < recording.case["run"]["cond_drop_prob"]
    label = Condition(label=io["class_ids"])
    count = len(dropped)
    everywhere = torch.ones(count, dtype=torch.bool)
    for name, null in (
        ("condition_ids", ~everywhere),
        ("condition_ids_with_drop", dropped),
        ("none_condition_ids", everywhere),
    ):
        assert torch.equal(model.condition(label, count, null)[:, 0], table[io[name]]), name
    assert torch.equal(model.embed[0].weight, table[: model.spec.vocab[0]])


def test_logits_in_any_order(recording, model):
    io, label = recording.io, Condition(label=recording.io["class_ids"])
    tokens, orders = io["tokens"], io["orders"]
    permuted = tokens.gather(1, orders)
    assert torch.equal(permuted, io["labels_permuted"])
    assert torch.equal(tokens, io["labels_raster"])
    recording.close(logits(model, permuted, label, orders), "logits_permuted")
    recording.close(raster := logits(model, tokens, label), "logits_raster")
    recording.close(logits(model, tokens, Condition()), "logits_raster_uncond")
    right = (raster[:, :-1].argmax(-1) == tokens).float().mean()
    recording.close(right, "ar_acc_raster")
    given = Tokens.of(model.spec, tokens[..., None])
    with torch.no_grad():
        recording.close(model(given, label)["loss"], "ar_loss_raster")
        draws = Draws(parts={"generator": PartDraws(order=orders)})
        recording.close(model(given, label, draws)["loss"], "ar_loss_permuted")


@pytest.mark.parametrize("cache", [True, False])
def test_guided_logits_of_sampling(recording, model, cache, monkeypatch):
    """The recorded tokens are imposed, and what they would have been chosen from is looked at."""
    io, run, count = recording.io, recording.case["run"], len(recording.io["tokens"])
    known = Tokens.of(model.spec, io["tokens"][..., None])
    given = Condition(label=io["class_ids"], known=known, known_mask=known.kept())
    look = lambda **changes: chosen_from(
        monkeypatch, model, given, {"cache": cache, **changes}, count
    )
    recording.close(look(guidance=1.0), "kv_logits_cond")
    # The schedule, whatever the sampler makes of a scale of 0 (see below).
    schedule = model.settings({"guidance": run["guidance_scale"]})
    length = model.spec.length
    scales = torch.tensor([schedule.scale_at(i / length) for i in range(length)])
    recording.close(scales, "cfg_scales")
    recording.close(look(guidance=run["guidance_scale"]), "cfg_logits")
    # The official sampler takes a scale of 0 as no guidance; the import has settled that.
    probabilities = (look() / model.sampling.temperature).softmax(-1)
    recording.close(probabilities, "generate_probs")


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here: rows that nobody reads are zero
    again, written = to_official(model, "rar")
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in weights.items()}
    twin = from_official("rar", again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert twin.config == model.config and twin.spec.length == model.spec.length
