"""FlexTok against apple/ml-flextok: encode, velocities, sampling, stage by stage and end to end."""

import re

import pytest
import torch
import torch.nn.functional as F

from tests.support.flextok_family import tree
from vistok.core.records import Condition, Noisy
from vistok.layers.flow import path
from vistok.pretrained import from_official, to_official
from vistok.pretrained.table import family_of

CASE = "flextok"


def built(recording):
    """The tokenizer; its export gives the official weights back bit for bit."""
    pytest.importorskip("diffusers")
    config = tree(recording.config)
    tokenizer = from_official("flextok", recording.weights, config, str(recording.folder))
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(recording.weights)
    for key, tensor in recording.weights.items():
        assert torch.equal(state[key], tensor) and state[key].dtype == tensor.dtype, key
    ours = family_of("flextok").official(tokenizer.config)
    assert from_official("flextok", state, ours, "export").config == tokenizer.config
    return tokenizer


@torch.no_grad()
def test_flextok(recording):
    io, tokenizer = recording.io, built(recording)
    pixels = (io["images"] + 1) / 2
    latents = tokenizer.input_space(pixels)
    close(recording, latents, "vae_latents", "latents")
    close(recording, tokenizer.encoder(io["vae_latents"]).values, "pre_fsq", "latents")
    quantized = tokenizer.quantize(tokenizer.latents(pixels))
    assert torch.equal(quantized.indices[..., 0], io["tokens"])
    close(recording, quantized.values, "quants", "latents")
    tokens = tokenizer.encode(pixels)
    assert torch.equal(tokens.indices[..., 0].long(), io["tokens"])
    assert torch.equal(tokenizer.quantizer.lookup(io["tokens"][..., None]), io["quants"])
    noisy = tokenizer.decoder.corrupt(io["vae_latents"], draws(io))
    close(recording, noisy.x, "x_t", "latents")
    check_velocities(recording, tokenizer)
    check_sampling(recording, tokenizer, tokens)


def check_velocities(recording, tokenizer):
    io, decoder = recording.io, tokenizer.decoder
    noisy, values = Noisy(io["x_t"], io["t"]), io["quants"]
    close(recording, decoder.time(io["t"]), "time_embedding", "velocity")
    whole = decoder(values, None, None, noisy)
    for name in io:
        if keep := re.fullmatch(r"velocity_keep(\d+)", name):
            shown = present(values, int(keep[1]))
            close(recording, decoder(values, shown, None, noisy).prediction, name, "velocity")
            if int(keep[1]) == values.shape[1]:
                close(recording, whole.prediction, name, "velocity")
    null = Condition(null=torch.ones(len(values), dtype=torch.bool))
    for shown in (None, present(values, 1)):  # unconditional wins over length
        found = decoder(values, shown, null, noisy).prediction
        close(recording, found, "velocity_uncond", "velocity")
    loss = F.mse_loss(whole.prediction, path.velocity(io["vae_latents"], io["noise"]))
    close(recording, loss, "rf_loss", "velocity")
    for name in io:
        if block := re.fullmatch(r"repa_layer(\d+)_features", name):
            check_tap(recording, tokenizer, int(block[1]), noisy, name)


def check_tap(recording, tokenizer, block, noisy, name):
    """States after a block: of patches as losses see them, and of all positions."""
    decoder, values = tokenizer.decoder, recording.io["quants"]
    decoder.config = decoder.config.model_copy(update={"taps": {"repa": block + 1}})
    expected = recording.io[name]
    patches = decoder(values, None, None, noisy).features["repa"]
    close(recording, patches, expected[:, : patches.shape[1]], "velocity")
    decoder.whole_taps = True
    rows = decoder(values, None, None, noisy).features["repa"]
    close(recording, rows, expected, "velocity")
    decoder.whole_taps = False


def check_sampling(recording, tokenizer, tokens):
    io, decoder, sampler = recording.io, tokenizer.decoder, recording.config["sampler"]
    values, scale = io["quants"], sampler["guidance"]
    guidance = {
        "nocfg": {"scale": 1.0},
        "cfg": {"kind": "cfg", "scale": scale},
        "apg": {"kind": "apg", "scale": scale, **sampler["apg"]},
    }
    for name in io:
        found = re.fullmatch(r"detok_(nocfg|cfg|apg)_latents_(keep(\d+)|mixed)", name)
        if not found:
            continue
        keep = found[3] and int(found[3])
        if keep is None:
            keep = torch.tensor(recording.config["keep_lengths"])[: len(values), None]
        settings = {"steps": sampler["steps"], "guidance": guidance[found[1]]}
        settings = tokenizer.settings(settings)
        made = decoder.sample(values, present(values, keep), None, io["noise"], settings)
        close(recording, made, name, "detok")
        image = name.replace("latents", "image")
        if image in io:
            pixels = tokenizer.output_space.inverse(io[name])
            close(recording, pixels * 2 - 1, image, "detok")
            # End to end, from the tokens: the noise is the recorded one.
            decoder.noise = lambda index, rng: io["noise"]
            cut = tokens.prefix(keep) if isinstance(keep, int) else tokens
            made = tokenizer.decode(cut, sampling=settings)
            close(recording, made, ((io[image] + 1) / 2).clamp(0, 1), "detok")


def draws(io):
    from vistok.core.draws import PartDraws

    return PartDraws(noise=io["noise"], time=io["t"])


def present(values, keep):
    """[B, M] bool: the first `keep` values, one number or [B, 1]."""
    shown = torch.arange(values.shape[1])[None] < torch.as_tensor(keep)
    return shown.expand(len(values), -1)


def close(recording, found, expected, within):
    """Within the tolerance of a family of tensors, unless the tensor has its own."""
    stated = recording.case["tolerance"]
    own = isinstance(expected, str) and expected in stated
    recording.close(
        found,
        recording.io[expected] if isinstance(expected, str) else expected,
        expected if own else within,
    )
