"""KL-16 and its levels against YuqingWang1029/TokenBridge: stages, end to end, weights."""

import torch

from tests.support.parity_family import flat
from vistok.config import validate
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Latents
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.tokenizer import Tokenizer, TokenizerConfig

CASE = "tokenbridge_vae"
QUANTIZER = ("bits", "range", "std_range", "latent_scale")


def at_size(tokenizer: Tokenizer, sides) -> Tokenizer:
    """The same network for images of other sides than its constants' 256."""
    config = tokenizer.config.model_copy(update={"image_size": tuple(sides)})
    found = Tokenizer(validate(TokenizerConfig, config.model_dump()))
    found.load_state_dict(tokenizer.state_dict())
    return found.eval()


def test_autoencoder(recording):
    io = recording.io
    config = {k: v for k, v in recording.config.items() if k not in QUANTIZER}
    tokenizer = from_official("mar_vae", recording.weights, config)
    state, official = to_official(tokenizer)
    assert set(state) == set(recording.weights)
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    assert official == config
    again = FAMILIES["mar_vae"].official(tokenizer.config)
    assert {key: again[key] for key in config} == config
    tokenizer = at_size(tokenizer, io["image"].shape[-2:])
    scale = recording.config["latent_scale"]
    with torch.no_grad():
        latents = tokenizer.latents((io["image"] + 1) / 2)
        mean, logvar = tokenizer.quantizer.posterior(latents.values)
        recording.close(mean, flat(io["posterior_mean"]), "posterior_mean")
        recording.close(logvar, flat(io["posterior_logvar"]), "posterior_logvar")
        both = torch.cat([flat(io[f"posterior_{name}"]) for name in ("mean", "logvar")], -1)
        drawn = Draws(parts={"quantizer": PartDraws(noise=flat(io["noise"]))})
        given = tokenizer.quantize(Latents(both, latents.grids), drawn)
        recording.close(given.values * scale, flat(io["scaled_latents"]), "scaled_latents")
        decoded = tokenizer.reconstruct(flat(io["scaled_latents"]) / scale).estimate
        recording.close(decoded, "reconstruction_continuous")
        sampled = tokenizer.quantize(latents, drawn)
        decoded = tokenizer.reconstruct(sampled.values).estimate
        recording.close(decoded, "reconstruction_continuous")
        recording.close(
            tokenizer.reconstruct(flat(io["dequantised"]) / scale).estimate, "reconstruction"
        )


def test_quantized(recording):
    io, config = recording.io, recording.config
    whole = from_official("tokenbridge", recording.weights, config)
    state, official = to_official(whole)
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    assert official == config
    again = FAMILIES["tokenbridge"].official(whole.config)
    assert {key: again[key] for key in config} == config
    tokenizer = at_size(whole, io["image"].shape[-2:])
    quantizer, indices = tokenizer.quantizer, flat(io["indices"])
    with torch.no_grad():
        rounded = quantizer.quantizer(Latents(flat(io["scaled_latents"]), tokenizer.encoder.grids))
        assert torch.equal(rounded.indices, indices)
        recording.close(rounded.values, flat(io["dequantised"]), "dequantised")
        decoded = tokenizer.reconstruct(quantizer.given_back(flat(io["dequantised"]))).estimate
        recording.close(decoded, "reconstruction")
        both = torch.cat([flat(io[f"posterior_{name}"]) for name in ("mean", "logvar")], -1)
        drawn = Draws(parts={"quantizer": PartDraws(noise=flat(io["noise"]))})
        given = tokenizer.quantize(Latents(both, tokenizer.encoder.grids), drawn)
        assert torch.equal(given.indices, indices)
        sampled = tokenizer.quantize(tokenizer.latents((io["image"] + 1) / 2), drawn)
        assert torch.equal(sampled.indices, indices)
        recording.close(tokenizer.reconstruct(sampled.values).estimate, "reconstruction")
        tokens = tokenizer.tokens(sampled)
        shown = (io["reconstruction"] / 2 + 0.5).clamp(0, 1)
        recording.close(tokenizer.decode(tokens), shown, "reconstruction")
