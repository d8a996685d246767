"""TokenFlow's tokenizer against ByteFlow-AI/TokenFlow: stages, prefixes, training passes, weights.

Recordings leave the teacher out: its features are recorded, and a random tower stands in its place.
"""

import torch

from tests.support.parity_family import flat
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.layers.resize import resize
from vistok.pretrained import from_official, to_official
from vistok.pretrained.table import FAMILIES
from vistok.tokenizer import Tokenizer, TokenizerConfig

CASE = "tokenflow"


def built(recording):
    """The tokenizer of a recording, with a tower of a block that nobody asks."""
    family, stored = FAMILIES["tokenflow"], recording.weights
    config = recording.config | {"encoder_depth": 2}
    config["image_size"] = recording.io["image"].shape[-1]
    described = TokenizerConfig.model_validate(family.config(family.observed(config, stored)))
    torch.manual_seed(0)
    whole, _ = to_official(Tokenizer(described), "tokenflow")
    weights = {k: v for k, v in whole.items() if k.startswith("encoder_vqkd.")} | stored
    tokenizer = from_official("tokenflow", weights, config)
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(whole) >= set(stored)
    assert all(torch.equal(state[key], tensor) for key, tensor in weights.items())
    said = family.official(tokenizer.config)
    assert from_official("tokenflow", state, said).config == tokenizer.config
    return tokenizer


def test_tokenflow(recording):
    io, config = recording.io, recording.config
    tokenizer = built(recording)
    images, scales = io["image"], config["scales"]
    semantic, pixels = tokenizer.encoder.branches
    grid = (scales[-1], scales[-1])
    recorded = torch.cat([flat(io["semantic_latent"]), flat(io["pixel_latent"])], dim=-1)
    width = config["semantic_code_dim"]

    # Stage by stage, each from the recorded input.
    with torch.no_grad():
        recording.close(semantic.normalized(images), "semantic_encoder_input")
        features = io["semantic_features"]
        latents = semantic.encoder.head(features)
        recording.close(latents, recorded[..., :width], "semantic_latent")
        own = pixels(images, None)
        assert own.grids == tokenizer.encoder.grids == (grid,)
        recording.close(own.values, recorded[..., width:], "pixel_latent")
        quantized = tokenizer.quantize(Latents(recorded, (grid,)))
        codes = quantized.indices
        assert torch.equal(codes[..., 0], io["indices"])
        recording.close(quantized.values, flat(io["quantised"]), "quantised")
        check_scales(recording, tokenizer.quantizer, recorded)
        check_decoded(recording, tokenizer, flat(io["quantised"]))

    # End to end, from the recorded features; then without the last scale, as a prefix.
    with torch.no_grad():
        values = torch.cat([latents, own.values], dim=-1)
        quantized = tokenizer.quantize(Latents(values, (grid,)))
        assert torch.equal(quantized.indices[..., 0], io["indices"])
        check_decoded(recording, tokenizer, quantized.values)
        fewer = tokenizer.tokens(quantized).prefix(len(scales) - 1)
        check_decoded(recording, tokenizer, tokenizer.values(fewer), "_without_last_scale")

    for name in ("train", "train_drop"):
        check_training(recording, tokenizer.quantizer.train(), recorded, name)


def check_decoded(recording, tokenizer, values, more=""):
    io, decoder = recording.io, tokenizer.decoder
    decoded = tokenizer.reconstruct(values)
    recording.close(decoded.features["semantic"], f"semantic_reconstruction{more}")
    name, image = f"image_reconstruction{more}", decoded.estimate
    wanted = io[name].shape[-1]  # SigLIP's is always resized to 384
    if image.shape[-1] != wanted:
        own = decoder.pixels(values[..., decoder.semantic.dim :]).estimate
        image = resize(own, wanted, "bicubic", antialias=False)
    recording.close(image, name)


def check_scales(recording, quantizer, z):
    """Pooled residuals and codes of each scale."""
    io, rest = recording.io, z
    for level, block in enumerate(quantizer.blocks):
        name = f"scale{level}"
        if f"{name}_input" not in io:
            continue
        recording.close(quantizer.down(rest, level), flat(io[f"{name}_input"]), f"{name}_input")
        seen = Latents(flat(io[f"{name}_input"]), (block,))
        codes = quantizer.atom(0).lookup(quantizer.atom(0).search(seen)[0])
        recording.close(codes, flat(io[f"{name}_quantised"]), f"{name}_quantised")
        rest = rest - quantizer.up(codes, level)


def check_training(recording, quantizer, z, name):
    """A training pass over the scales that were used."""
    io, scales = recording.io, recording.config["scales"]
    if f"{name}_indices" not in io:
        return
    used = torch.tensor([side in io[f"{name}_scales"].tolist() for side in scales])
    draws = Draws(levels=used.expand(len(z), -1))
    found = quantizer(Latents(z, (quantizer.grid,)), draws)
    shown = used.repeat_interleave(torch.tensor([side**2 for side in scales]))
    assert torch.equal(found.indices[:, shown, 0], io[f"{name}_indices"])
    recording.close(found.values, flat(io[f"{name}_quantised"]), f"{name}_quantised")
    losses, weights = found.losses, quantizer.loss_weights
    recording.close(losses["codebook"] * weights["codebook"], f"{name}_vq_loss")
    recording.close(losses["commitment"] * weights["commitment"], f"{name}_commit_loss")
    entropy = sum(weights.get(n, 0) * v for n, v in losses.items() if n.startswith("entropy"))
    recording.close(torch.as_tensor(entropy), f"{name}_entropy_loss")
