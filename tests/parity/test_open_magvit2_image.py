"""Open-MAGVIT2's image tokenizer against TencentARC/SEED-Voken: stages, end to end, losses,
weights."""

import pytest
import torch
from torch import nn

from tests.support.open_magvit2 import recorded_indices
from tests.support.parity_family import flat
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.records import Latents
from vistok.core.shapes import Shape
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.pretrained.tokenizers.open_magvit2_layout import COMMITMENT, ENTROPY
from vistok.tokenizer import TokenizerConfig

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


def networks(recording):
    """(encoder, decoder) of images of any channels; tokenizers have three."""
    given = config_of(recording)
    network, family = given["ddconfig"], FAMILIES["open_magvit2"]
    usual = {**given, "ddconfig": {**network, "in_channels": 3, "out_ch": 3}}
    config = validate(TokenizerConfig, family.config(usual))
    sides, bits = config.image_size, config.quantizer.bits
    encoder = build(config.encoder, Shape(network["in_channels"], sides), bits)
    decoder = build(config.decoder, Shape(network["out_ch"], sides), encoder.grids, bits)
    both, weights = nn.ModuleDict({"encoder": encoder, "decoder": decoder}), recording.weights
    table = {one.ours: weights[one.theirs[0]].float() for one in family.entries(config)}
    assert len(table) == len(weights)
    both.load_state_dict(table)
    return encoder.eval(), decoder.eval()


def test_open_magvit2_networks(recording):
    io, (encoder, decoder) = recording.io, networks(recording)
    with torch.no_grad():
        recording.close(encoder(io["image"]).values, flat(io["z"]), "z")
        recording.close(decoder(flat(io["quantized"])).estimate, "decoded")


def test_open_magvit2_image(recording):
    network = recording.config["ddconfig"]
    if (network["in_channels"], network["out_ch"]) != (3, 3):
        with pytest.raises(ConfigError, match="expected 3, RGB images"):
            from_official("open_magvit2", recording.weights, recording.config)
        return
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
