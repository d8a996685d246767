"""ReTok against zfu006/ReTok: stage by stage, every kept length, end to end, and its weights."""

import re

import torch
import torch.nn.functional as F

from tests.support.parity_family import built, flat
from vistok.core.draws import Draws
from vistok.core.records import Batch, Latents

CASE = "retok"


def pixels(recording):
    return (recording.io["image"] + 1) / 2


def kept(recording):
    """Kept lengths that were recorded, by the names of their tensors."""
    found = {name: re.fullmatch(r"decoded_keep(\d+)", name) for name in recording.io}
    return {name: int(match[1]) for name, match in found.items() if match}


def test_encoder_and_codes(recording):
    io, tokenizer = recording.io, built(recording, "retok")
    with torch.no_grad():
        latents = tokenizer.latents(pixels(recording))
        recording.close(latents.features["z"], flat(io["cnn_features"]), "cnn_features")
        recording.close(latents.features["tokens"], flat(io["token_features"]), "token_features")
        recording.close(latents.values, flat(io["pre_quant"]), "pre_quant")
        projected = tokenizer.encoder.proj(flat(io["token_features"]))
        recording.close(projected, flat(io["pre_quant"]), "pre_quant")
    recorded = flat(io["pre_quant"]).requires_grad_()
    tokenizer.quantizer.train()  # its losses are those of training
    quantized = tokenizer.quantize(Latents(recorded, latents.grids))
    assert torch.equal(quantized.indices[..., 0], io["indices"])
    assert torch.equal(tokenizer.quantize(latents).indices[..., 0], io["indices"])
    recording.close(quantized.values, flat(io["quant"]), "quant")
    losses, weights = quantized.losses, tokenizer.quantizer.loss_weights
    recording.close(losses["codebook"] * weights["codebook"], "vq_loss")
    recording.close(losses["commitment"] * weights["commitment"], "commit_loss")
    if "grad_probe" in io:
        (quantized.values * flat(io["grad_probe"])).sum().backward()
        recording.close(recorded.grad, flat(io["rotation_trick_grad"]), "rotation_trick_grad")


def test_every_kept_length(recording):
    io, tokenizer = recording.io, built(recording, "retok").eval()
    values, spec = flat(io["quant"]), tokenizer.spec()
    total = values.shape[1]
    assert spec.length == recording.config["num_latent_tokens"] and total == tokenizer.layout.count
    batch = Batch(torch.arange(len(values)), pixels(recording))
    for name, length in kept(recording).items():
        present = (torch.arange(total) < length).expand(len(values), -1)
        with torch.no_grad():
            hidden = tokenizer.reconstruct(values, present)
            cut = tokenizer.reconstruct(values[:, :length])
            draws = Draws(keep=torch.full((len(values),), length))
            drawn = tokenizer(batch, draws).decoded.estimate
        for found in (hidden.estimate, cut.estimate, drawn):
            recording.close(found, name)
        features = name.replace("decoded", "rec_spatial")
        if features in io:
            recording.close(hidden.features["z"], flat(io[features]), features)
            made = tokenizer.decoder.cnn.from_map(io[features]).estimate
            recording.close(made, name)
        if length <= spec.length:
            tokens = tokenizer.encode(pixels(recording)).prefix(length)
            recording.close(tokenizer.decode(tokens), (io[name] / 2 + 0.5).clamp(0, 1), name)


def test_default_length(recording):
    """Evaluation shows the decoder the tokens that are stored, whatever way it goes."""
    io, tokenizer = recording.io, built(recording, "retok").eval()
    length = tokenizer.spec().length
    with torch.no_grad():
        result = tokenizer(Batch(torch.arange(len(io["image"])), pixels(recording)))
        recording.close(result.decoded.estimate, "decoded_default")
        if "distill_features" in io:
            recording.close(result.decoded.features["distill"], "distill_features")
        z = result.latents.features["z"]
        recording.close(F.mse_loss(result.decoded.features["z"], z), "feature_mse")
        direct = tokenizer.decoder.cnn.from_map(io["cnn_features"]).estimate
        recording.close(direct, "cnn_direct_reconstruction")
        values = tokenizer.quantizer.lookup(io["indices"][:, :length, None])
        recording.close(tokenizer.reconstruct(values).estimate, "decoded_from_N_ids")
    tokens = tokenizer.encode(pixels(recording))
    assert torch.equal(tokens.indices[..., 0].long(), io["indices"][:, :length])
    shown = (io["decoded_from_N_ids"] / 2 + 0.5).clamp(0, 1)
    recording.close(tokenizer.decode(tokens), shown, "decoded_from_N_ids")
