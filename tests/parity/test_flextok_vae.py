"""FlexTok's VAE space against apple/ml-flextok (diffusers' AutoencoderKL inside)."""

import pytest
import torch

from vistok.core.draws import PartDraws
from vistok.core.shapes import Shape
from vistok.spaces.vae import VAEConfig, VAESpace

CASE = "flextok_vae"


def test_flextok_vae(recording):
    pytest.importorskip("diffusers")
    config, io = recording.config, recording.io
    levels = len(config["block_out_channels"])
    names = ("latent_channels", "block_out_channels", "layers_per_block", "norm_num_groups")
    network = {
        **{name: config[name] for name in (*names, "act_fn", "norm_eps")},
        "mid_block_add_attention": config["mid_block_attention"],
        "down_block_types": each(config["down_block"], levels),
        "up_block_types": each(config["up_block"], levels),
    }
    space = VAEConfig(weights="own", network=network, scaling_factor=config["scaling_factor"])
    space = VAESpace(space, Shape(3, tuple(io["image"].shape[2:])))
    space.vae.network.load_state_dict(recording.weights)
    pixels = (io["image"] + 1) / 2
    with torch.no_grad():
        posterior = space.posterior(pixels)
        recording.close(posterior.mean, "mean")
        recording.close(posterior.logvar, "logvar")
        recording.close(posterior.kl(), "kl")
        recording.close(space(pixels), io["mean"] * config["scaling_factor"], "latents")
        recording.close(space(pixels, PartDraws(noise=io["eps"])), "latents")
        recording.close(space.inverse(io["latents"]) * 2 - 1, "decoded")
        again = space.inverse(space(pixels, PartDraws(noise=io["eps"])))
        recording.close(again * 2 - 1, "decoded")


def each(kind, levels):
    """The kinds of all levels; one name stands for all."""
    return [kind] * levels if isinstance(kind, str) else kind
