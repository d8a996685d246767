"""VideoFlexTok against apple/ml-videoflextok: tokens, velocities and sampling, stage by stage and
end to end. The recordings begin and end with latents of the VAE."""

import re

import torch

from tests.support.videoflextok_family import tree, vae_state
from vistok.core.draws import PartDraws
from vistok.core.records import Condition, Latents, Noisy
from vistok.pretrained import from_official, to_official
from vistok.pretrained.table import family_of

CASE = "videoflextok"
_NUMBER = r"(-?\d+(?:\.\d+)?)"


def built(recording):
    """The tokenizer, with a VAE of ours; its export gives all weights back bit for bit."""
    weights = {**recording.weights, **vae_state(recording.config)}
    config = tree(recording.config, weights)
    tokenizer = from_official("videoflextok", weights, config, str(recording.folder))
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(weights)
    for key, tensor in weights.items():
        assert torch.equal(state[key], tensor) and state[key].dtype == tensor.dtype, key
    ours = family_of("videoflextok").official(tokenizer.config)
    assert from_official("videoflextok", state, ours, "export").config == tokenizer.config
    return tokenizer


@torch.no_grad()
def test_videoflextok(recording):
    io, tokenizer = recording.io, built(recording)
    latents = tokenizer.encoder(io["latents"])
    close(recording, rows(io["pre_fsq"]), latents.values, "latents")
    given = Latents(rows(io["pre_fsq"]), latents.grids)
    quantized = tokenizer.quantize(given)
    assert torch.equal(quantized.indices[..., 0], rows(io["tokens"]))
    close(recording, rows(io["quants"]), quantized.values, "latents")
    looked_up = tokenizer.quantizer.lookup(rows(io["tokens"])[..., None])
    close(recording, rows(io["quants"]), looked_up, "latents")
    tokens = tokenizer.tokens(tokenizer.quantize(latents))
    assert torch.equal(tokens.indices[..., 0].long(), rows(io["tokens"]))
    # The tokens of a shorter clip are those of its steps, if no step sees a later one.
    if "time_block" in recording.config["enc_mask_mode"]:
        first = tokenizer.quantize(tokenizer.encoder(io["latents"][:, :, :1])).indices
        assert torch.equal(first[..., 0], io["tokens"][:, 0])
    check_velocities(recording, tokenizer)
    check_sampling(recording, tokenizer, tokens)


def check_velocities(recording, tokenizer):
    io, decoder, values = recording.io, tokenizer.decoder, rows(recording.io["quants"])
    batch = len(values)
    for name in (name for name in io if name.startswith("velocity_")):
        said = meaning(recording, name)
        times = [float(t) for t in re.findall(r"t=([\d.]+\d)", said)]
        noisy = decoder.corrupt(
            io["latents"],
            PartDraws(noise=io["noise"], time=torch.tensor(times * (batch // len(times)))),
        )
        if len(times) == 1:
            close(recording, io["x_t"], noisy.x, "latents")
            noisy = Noisy(io["x_t"], noisy.time)
        shown, condition = seen(recording, name, values)
        found = decoder(values, shown, condition, noisy).prediction
        close(recording, io[name], found, "velocity", name)


def check_sampling(recording, tokenizer, tokens):
    io, decoder, values = recording.io, tokenizer.decoder, rows(recording.io["quants"])
    for name in (name for name in io if name.startswith("detok_")):
        settings = tokenizer.settings(sampler(meaning(recording, name)))
        shown, condition = seen(recording, name, values)
        made = decoder.sample(values, shown, condition, io["noise"], settings)
        close(recording, io[name], made, "detok", name)
        # From the tokens, with the recorded noise and given frames that stand for pixels.
        decoder.noise = lambda index, rng: io["noise"]
        cut = tokens.prefix(kept(meaning(recording, name)) or tokens.spec.max_prefix)
        found = tokenizer.values(cut)
        frames = None if condition is None else condition.frames
        if frames is not None:
            tokenizer.output_space.forward = lambda pixels, frames=frames: frames
            condition = Condition(frames=torch.zeros(len(values), *pixels_of(tokenizer, frames)))
        shown = tokenizer._present_of(cut, found)
        made = tokenizer._sample(found, shown, condition, None, 0, settings)
        close(recording, io[name], made, "detok", name)


def pixels_of(tokenizer, frames):
    """Shape of the pixels of given latent frames."""
    stride = tokenizer.config.input_space.network.frame_stride
    return 3, 1 + (frames.shape[2] - 1) * stride, *tokenizer.shape.image_size


def seen(recording, name, values):
    """(present, condition) of what a tensor's meaning says: kept registers, given frames."""
    said, io = meaning(recording, name), recording.io
    keep, steps = kept(said), recording.io["tokens"].shape[1]
    shown = None
    if keep is not None:
        shown = (torch.arange(io["tokens"].shape[2]) < keep).repeat(len(values), steps)
    hidden = re.search(r"registers of the first (\d+ )?latent steps?", said)
    if hidden is None:
        return shown, None
    count = int(hidden[1] or 1)
    lengths = torch.full((len(values),), count)
    frames = io["latents"][:, :, :count] if "latent frame" in said else None
    return shown, Condition(frames=frames, given=lengths)


def kept(said):
    """Registers per step that a meaning speaks of; None = all."""
    found = re.search(r"(all )?(\d+) tokens", said)
    return None if found is None or found[1] else int(found[2])


def sampler(said):
    """Settings of sampling as a meaning tells them."""
    number = lambda word: float(re.search(rf"{word} {_NUMBER}", said)[1])
    settings = {"steps": int(re.search(r"(\d+) (?:Euler )?steps", said)[1])}
    settings["given"] = "sdedit" if "sdedit" in said or "noised" in said else "clean"
    settings["guidance"] = {"scale": 1.0}
    if "CFG" in said:
        settings["guidance"] = {"kind": "cfg", "scale": number("scale"), "rescale": 0.0}
    if "APG" in said:
        settings["guidance"] = {
            **{"kind": "apg", "scale": number("scale"), "momentum": number("momentum")},
            **{"eta": number("eta"), "norm_threshold": number("threshold"), "norms": "channel"},
        }
    if "rescale" in said:
        settings["guidance"] |= {"rescale": number("rescale"), "rescale_over": "column"}
    return settings


def rows(tensor):
    """[B, T, K, ...] -> [B, T*K, ...]."""
    return tensor.flatten(1, 2)


def meaning(recording, name):
    return recording.case["tensors"][name]["meaning"]


def close(recording, expected, found, within, name=None):
    stated = recording.case["tolerance"]
    recording.close(found, expected, name if name in stated else within)
