"""VAR's VQ-VAE against FoundationVision/VAR: stage by stage, end to end, and its weights."""

import torch

from tests.support.parity_family import flat
from vistok.core.records import Latents
from vistok.pretrained import from_official, to_official
from vistok.pretrained.table import FAMILIES

CASE = "var_vqvae"


def scales(io, name):
    """Tensors `name`.s0, .s1, ... [B, n] of a recording, one behind the other: [B, L]."""
    count = sum(key.startswith(f"{name}.s") for key in io)
    return torch.cat([io[f"{name}.s{scale}"] for scale in range(count)], dim=1)


def test_var_vqvae(recording):
    io = recording.io
    official = {**recording.config["vae"]}
    tokenizer = from_official("var_vqvae", recording.weights, official)
    pixels, grid = (io["image"] + 1) / 2, tuple(io["latents"].shape[2:])
    indices = scales(io, "indices")

    # Stage by stage, each from the recorded input.
    latents = tokenizer.latents(pixels)
    recording.close(latents.features["z"], flat(io["encoder_out"]), "encoder_out")
    recording.close(latents.values, flat(io["latents"]), "latents")
    quantizer = tokenizer.quantizer.train()  # its loss is that of training
    quantized = tokenizer.quantize(Latents(flat(io["latents"]), (grid,)))
    assert torch.equal(quantized.indices[..., 0], indices)
    recording.close(quantized.values, flat(io["f_hat"]), "f_hat")
    weights = quantizer.loss_weights
    loss = sum(weights[name] * value for name, value in quantized.losses.items())
    recording.close(loss, "vq_loss")
    codes = indices[..., None]
    blocks = tokenizer.spec().blocks
    for name in io:
        if name.startswith("f_hat.s"):
            count = int(name.removeprefix("f_hat.s")) + 1
            recording.close(quantizer.partial(codes, count, grid), flat(io[name]), name)
    read = [quantizer.partial(codes, s, blocks[s]) for s in range(1, len(blocks))]
    recording.close(torch.cat(read, dim=1), "var_input")
    recording.close(tokenizer.reconstruct(flat(io["f_hat"])).estimate, "decoded_raw")

    # End to end.
    tokens = tokenizer.eval().encode(pixels)
    assert torch.equal(tokens.indices[..., 0].long(), indices)
    in_range = lambda shown: shown * 2 - 1
    for name in ("recon", "recon_from_indices"):
        recording.close(in_range(tokenizer.decode(tokens)), name)
    for name in io:
        if name.startswith("recon_upto_s"):
            kept = int(name.removeprefix("recon_upto_s")) + 1
            recording.close(in_range(tokenizer.decode(tokens.prefix(kept))), name)

    # The weights go back.
    state, written = to_official(tokenizer)
    assert written == official and state.keys() == recording.weights.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    said = FAMILIES["var_vqvae"].official(tokenizer.config)
    assert from_official("var_vqvae", state, said).config == tokenizer.config
    # What the tensors do not tell; the other sizes are read from them.
    untold = ("v_patch_nums", "using_znorm", "quant_resi", "beta", "dropout")
    few = {name: said[name] for name in untold}
    assert from_official("var_vqvae", state, few).config == tokenizer.config
