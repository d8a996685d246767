"""Open-MAGVIT2's image tokenizer against TencentARC/SEED-Voken: stages, end to end, losses,
weights."""

import torch

from tests.support.open_magvit2 import recorded_indices
from tests.support.parity_family import flat
from vistok.core.records import Latents
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers.open_magvit2_layout import COMMITMENT, ENTROPY

CASE = "open_magvit2_image"
_PARTS = ("sample", "batch")


def config_of(recording):
    """The recorded config with the sides of the recorded images, which the network does not ask."""
    *_, height, width = recording.io["image"].shape
    sides = height if height == width else [height, width]
    return {**recording.config, "ddconfig": {**recording.config["ddconfig"], "resolution": sides}}


def built(recording):
    """The tokenizer; its export gives the weights back bit for bit, in both of its ways."""
    config = config_of(recording)
    tokenizer = from_official("open_magvit2", recording.weights, config)
    for origin in (tokenizer.origin, None):  # None: as if it had been trained here
        tokenizer.origin = origin
        state, official = to_official(tokenizer, "open_magvit2")
        assert set(state) == set(recording.weights)
        assert all(torch.equal(state[k].float(), t.float()) for k, t in recording.weights.items())
        again = from_official("open_magvit2", state, official)
        ours, theirs = (one.config.model_dump() for one in (tokenizer, again))
        for tree in (ours, theirs):
            tree["quantizer"].pop("loss_weights")  # products of two weights there
        assert ours == theirs
    return tokenizer


def test_open_magvit2_image(recording):
    io, tokenizer = recording.io, built(recording)
    images = (io["image"] + 1) / 2
    indices = recorded_indices(io, tokenizer.quantizer.config.bits)
    with torch.no_grad():
        # Stage by stage, each from the recorded input.
        latents = tokenizer.latents(images)
        recording.close(latents.values, flat(io["z"]), "z")
        quantized = tokenizer.quantize(Latents(flat(io["z"]), latents.grids))
        assert torch.equal(quantized.indices, indices)
        recording.close(quantized.values, flat(io["quantized"]), "quantized")
        decoded = tokenizer.reconstruct(flat(io["quantized"])).estimate
        recording.close(decoded, "decoded")
        # End to end.
        tokens = tokenizer.encode(images)
        assert torch.equal(tokens.indices.long(), indices)
        shown = (io["decoded"] / 2 + 0.5).clamp(0, 1)
        recording.close(tokenizer.decode(tokens), shown, "decoded")
        # In training.
        training = tokenizer.quantizer.train()(Latents(flat(io["z"]), latents.grids))
    weights = tokenizer.quantizer.loss_weights
    losses = (recording.config.get("lossconfig") or {}).get("params", {})
    entropy = losses.get("codebook_weight", ENTROPY)
    found = sum(training.losses[f"entropy_{k}"] * weights[f"entropy_{k}"] for k in _PARTS)
    recording.close(found / entropy, "entropy_aux_loss")
    recording.close(training.losses["commitment"], "commitment")
    assert weights["commitment"] == losses.get("commit_weight", COMMITMENT)
