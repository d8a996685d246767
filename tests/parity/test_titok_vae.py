"""TiTok's VAE, and TA-TiTok's, against bytedance/1d-tokenizer: posterior, sample, mode."""

import pytest
import torch

from tests.support.parity_family import built, check_encoder, condition, flat
from vistok.core.draws import Draws, PartDraws

CASES = ("titok_vae", "tatitok_vae")


def test_continuous(recording):
    io = recording.io
    tokenizer = built(recording, recording.case["system"])
    latents = check_encoder(recording, tokenizer)
    mean, logvar = tokenizer.quantizer.posterior(flat(io["z"]))
    recording.close(mean, flat(io["posterior_mean"]), "posterior_mean")
    recording.close(logvar, flat(io["posterior_logvar"]), "posterior_logvar")
    if "posterior_std" in io:
        recording.close((0.5 * logvar).exp(), flat(io["posterior_std"]), "posterior_std")
    drawn = Draws(parts={"quantizer": PartDraws(noise=flat(io["draw_0_randn"]))})
    sampled = tokenizer.quantize(latents, drawn)
    assert sampled.indices is None
    if "kl_loss" in io:
        recording.close(sampled.losses["kl"], "kl_loss")
        each = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
        recording.close(each, "kl_per_sample_token")
        assert each.sum().item() / len(each) == pytest.approx(sampled.losses["kl"].item(), rel=1e-5)
    text = condition(recording)
    for name, values in (
        ("recon_from_sample", sampled.values),
        ("recon_from_mode", tokenizer.quantize(latents).values),
    ):
        recording.close(tokenizer.reconstruct(values, condition=text).estimate, name)
    tokens = tokenizer.encode(io["image"])
    decoded = tokenizer.decode(tokens, condition=text)
    recording.close(decoded, io["recon_from_mode"].clamp(0, 1), "recon_from_mode")
    assert torch.equal(tokens.values, tokenizer.quantize(latents).values)
