"""What the recordings of the TiTok family share: stage by stage, and once end to end."""

import torch

from vistok.core.records import Condition, Latents
from vistok.pretrained import from_official, to_official


def built(recording, family):
    """The tokenizer of a recording; its export must give the official weights back bit for bit."""
    config = dict(recording.config)
    if "tiny" in recording.case:  # constants of the official source, replaced
        config["constants"] = recording.case["tiny"]
    tokenizer = from_official(family, recording.weights, config, str(recording.folder))
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(recording.weights)
    for key, tensor in recording.weights.items():
        assert torch.equal(state[key], tensor) and state[key].dtype == tensor.dtype, key
    again = from_official(family, state, family_config(family, tokenizer), "export")
    assert again.config == tokenizer.config
    return tokenizer


def family_config(family, tokenizer):
    """The official config as we write it for models that were trained here."""
    from vistok.pretrained.table import family_of

    return family_of(family).official(tokenizer.config)


def condition(recording):
    text = recording.io.get("text_guidance")
    return None if text is None else Condition(text=text)


def flat(tensor):
    """Their [B, D, h, w], or [B, D, 1, N] -> our [B, N, D]."""
    return tensor.flatten(2).transpose(1, 2)


def check_encoder(recording, tokenizer):
    """Up to the latents."""
    io, image = recording.io, recording.io["image"]
    seen = watch(tokenizer.encoder.norm_in)
    latents = tokenizer.latents(image)
    if "enc_ln_pre_out" in io:
        recording.close(seen[-1], "enc_ln_pre_out")
    if "enc_ln_post_out" in io:
        recording.close(latents.features["latents"], "enc_ln_post_out")
    recording.close(latents.values, flat(io["z"]), "z")
    return latents


def check_codes(recording, tokenizer):
    """From the recorded latents: indices, values, losses."""
    io, z = recording.io, flat(recording.io["z"])
    quantized = tokenizer.quantize(Latents(z, ((z.shape[1],),)))
    for one in (quantized, tokenizer.quantize(tokenizer.latents(io["image"]))):
        assert torch.equal(one.indices[..., 0], io["indices"].flatten(1))
    recording.close(quantized.values, flat(io["z_quantized"]), "z_quantized")
    losses, weights = quantized.losses, tokenizer.quantizer.loss_weights
    recording.close(losses["codebook"], "codebook_loss")
    recording.close(losses["commitment"] * weights["commitment"], "commitment_loss")
    total = losses["codebook"] + losses["commitment"] * weights["commitment"]
    recording.close(total, "quantizer_loss")
    return quantized


def check_decoder(recording, tokenizer):
    """From the recorded values, from the indices, and from the image."""
    io, text = recording.io, condition(recording)
    seen = watch(tokenizer.decoder.norm_in)
    decoded = tokenizer.reconstruct(flat(io["z_quantized"]), condition=text)
    if "dec_ln_pre_out" in io:
        recording.close(seen[-1], "dec_ln_pre_out")
    if "dec_ln_post_out" in io:
        recording.close(decoded.features["grid"], "dec_ln_post_out")
    if "decoder_out" in io:
        recording.close(decoded.prediction, "decoder_out")
    recording.close(tokenizer.output_space.inverse(decoded.estimate), "recon")
    tokens = tokenizer.encode(io["image"])
    pixels = tokenizer.decode(tokens, condition=text)
    recording.close(pixels, io["recon_from_indices"].clamp(0, 1), "recon_from_indices")
    return decoded


def watch(module):
    """A list that collects the module's outputs."""
    seen = []
    module.register_forward_hook(lambda *args: seen.append(args[-1]))
    return seen
