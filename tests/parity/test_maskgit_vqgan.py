"""MaskGIT-VQGAN against bytedance/1d-tokenizer: stage by stage, end to end, and its weights."""

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from vistok.config import ConfigError
from vistok.core.records import Latents
from vistok.pretrained import FAMILIES, from_official, to_official

CASE = "maskgit_vqgan"


@pytest.fixture
def weights(recording) -> dict:
    return load_file(recording.folder / "weights.safetensors")


def flat(grid: torch.Tensor) -> torch.Tensor:
    return rearrange(grid, "b d h w -> b (h w) d")


def test_maskgit_vqgan(recording, weights):
    io, config = recording.io, recording.config
    close = {"atol": recording.tolerance("atol"), "rtol": recording.tolerance("rtol")}
    tokenizer = from_official("maskgit_vqgan", weights, config)
    quantizer, grid = tokenizer.quantizer, tuple(io["z"].shape[2:])
    assert tokenizer.encoder.grids == (tokenizer.decoder.grid,) == (grid,)

    # Stage by stage, each from the recorded input.
    with torch.no_grad():
        latents = tokenizer.latents(io["image"])
        torch.testing.assert_close(latents.values, flat(io["z"]), **close)
        recorded = flat(io["z"])
        distances = quantizer.distances(recorded.flatten(0, 1))
        torch.testing.assert_close(distances, io["codebook_distances"], **close)
        assert torch.equal(distances.argmin(-1).view_as(io["indices"]), io["indices"])
        soft = quantizer.soft(recorded, recording.case["run"]["temp"])
        torch.testing.assert_close(soft, io["soft_code"], **close)
        result = quantizer(Latents(recorded, (grid,)))
        assert torch.equal(result.indices[..., 0], io["indices"])
        torch.testing.assert_close(result.values, flat(io["z_quantized"]), **close)
        terms = [quantizer.loss_weights[name] * term for name, term in result.losses.items()]
        torch.testing.assert_close(sum(terms), io["vq_loss"], **close)
        decoded = tokenizer.reconstruct(flat(io["z_quantized"])).estimate
        torch.testing.assert_close(decoded, io["recon_unclamped"], **close)

    # End to end.
    tokens = tokenizer.encode(io["image"])
    assert torch.equal(tokens.indices[..., 0].long(), io["indices"])
    torch.testing.assert_close(tokenizer.decode(tokens), io["recon"], **close)


def test_weights_go_back(recording, weights):
    tokenizer = from_official("maskgit_vqgan", weights, recording.config)
    state, config = to_official(tokenizer)
    assert config == recording.config and state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    tokenizer.origin = None  # as if it had been trained here
    again, written = to_official(tokenizer, "maskgit_vqgan")
    assert again.keys() == weights.keys() and written == recording.config


def test_what_the_official_layout_cannot_say_is_refused(recording, weights, fails):
    tokenizer = from_official("maskgit_vqgan", weights, recording.config)
    for part, change in (("output_space", {"std": 0.5}), ("encoder", {"bias_in": True})):
        changed = getattr(tokenizer.config, part).model_copy(update=change)
        with fails(ConfigError, next(iter(change)), "no place in the official layout"):
            FAMILIES["maskgit_vqgan"].official(tokenizer.config.model_copy(update={part: changed}))
