"""Open-MAGVIT2's video tokenizer against TencentARC/SEED-Voken: stages, end to end, weights."""

import torch
import torch.nn.functional as F
from einops import rearrange

from vistok.core.records import Latents
from vistok.pretrained import from_official, to_official

CASE = "open_magvit2_video"


def rows(maps):
    """Their [B, D, t, h, w] -> our [B, N, D]."""
    return rearrange(maps, "b d t h w -> b (t h w) d")


def config_of(recording):
    """The recorded config with the sides of the recorded clips, which the network does not ask."""
    *_, frames, height, width = recording.io["video"].shape
    network = {**recording.config["ddconfig"], "resolution": [height, width]}
    return {**recording.config, "ddconfig": network, "frames": frames}


def built(recording):
    """The tokenizer of the recorded clips; its export gives the weights back bit for bit."""
    config = config_of(recording)
    tokenizer = from_official(CASE, recording.weights, config)
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(recording.weights)
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    return tokenizer


def test_open_magvit2_video(recording):
    io, tokenizer = recording.io, built(recording)
    clips, indices = (io["video"] + 1) / 2, io["indices"].view(len(io["video"]), -1)
    with torch.no_grad():
        # Stage by stage, each from the recorded input.
        latents = tokenizer.latents(clips)
        recording.close(latents.values, rows(io["z"]), "z")
        quantized = tokenizer.quantize(Latents(rows(io["z"]), latents.grids))
        assert torch.equal(quantized.indices[..., 0], indices)
        recording.close(quantized.values, rows(io["quantized"]), "quantized")
        decoded = tokenizer.reconstruct(rows(io["quantized"])).estimate
        recording.close(decoded, "decoded")
        # End to end.
        tokens = tokenizer.encode(clips)
        assert torch.equal(tokens.indices[..., 0].long(), indices)
        shown = (io["decoded"] / 2 + 0.5).clamp(0, 1)
        recording.close(tokenizer.decode(tokens), shown, "decoded")


def test_averaged_weights_are_those_that_are_read(recording):
    average = {key: tensor + 1 for key, tensor in recording.weights.items()}
    plain = {f"model_ema.{key.replace('.', '')}": tensor for key, tensor in average.items()}
    state = {**recording.weights, **plain, "loss.discriminator.main.0.weight": torch.zeros(1)}
    tokenizer = from_official(CASE, state, config_of(recording))
    key = "decoder.conv_out.conv_1.bias"
    assert torch.equal(tokenizer.decoder.conv_out.bias, average[key])
    exported, _ = to_official(tokenizer)
    assert set(exported) == set(state) and torch.equal(exported[key], average[key])
    assert not F.mse_loss(exported[key], recording.weights[key]) == 0
