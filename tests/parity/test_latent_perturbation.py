"""Latent perturbation against qiuk2/RobusTok: recorded numbers in, codes and gradients out."""

import pytest
import torch
from einops import rearrange

from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import robustok_ratio
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.regularizers.choice import chosen_images
from vistok.regularizers.latent_perturbation import LatentPerturbationConfig, perturbation_ranks

CASE = "latent_perturbation"


def quantizer_of(recording) -> VQ:
    config = recording.config
    quantizer = VQ(
        VQConfig(
            codebook_size=config["codebook_size"],
            dim=config["z_channels"],
            l2_norm=config["codebook_norm"],
        )
    )
    quantizer.codebook.data.copy_(recording.io["codebook"])
    return quantizer


def test_perturbation(recording):
    io, close = recording.io, {"atol": recording.tolerance("float_abs", "float"), "rtol": 0}
    quantizer = quantizer_of(recording)
    batch, _, height, width = io["z"].shape
    length = height * width
    assert recording.config["sets"]
    for i, numbers in enumerate(recording.config["sets"]):
        name = f"set{i}."
        z = io["z"].clone().requires_grad_()
        latents = Latents(rearrange(z, "b c h w -> b (h w) c"), ((height, width),))
        u = io[name + "random_prob"].view(batch, length, 1)
        rank = io[name + "random_rank"].view(batch, length, 1)
        config = LatentPerturbationConfig(
            rate=numbers["alpha"],
            proportion=numbers["beta"],
            neighbours=numbers["delta"],
            choose="first_local",
        )
        images = chosen_images(torch.arange(batch), config.proportion, config.choose, Rng(0))
        assert int(images.sum()) == numbers["images_perturbed"]
        ranks = perturbation_ranks(u, rank, numbers["alpha"])
        ranks = torch.where(images[:, None, None], ranks, 0)
        result = quantizer(latents, Draws(ranks=ranks))

        clean = result.indices[..., 0]
        assert torch.equal(clean, io["clean_indices"])
        moved = quantizer.perturb(result.queries, ranks)[..., 0]
        assert torch.equal(moved, io[name + "indices"])
        assert torch.equal(moved != clean, io[name + "changed"])
        assert int((moved != clean).sum()) == numbers["tokens_changed"]

        on_grid = lambda x: rearrange(x, "b (h w) c -> b c h w", h=height)
        torch.testing.assert_close(on_grid(result.clean), io["z_q"], **close)
        torch.testing.assert_close(on_grid(result.values), io[name + "out"], **close)
        # The recording holds z_q constant: clean positions hand no gradient to z there.
        out = torch.where(
            images[:, None, None, None], on_grid(result.values), on_grid(result.clean).detach()
        )
        weights = torch.arange(out.numel()).sin().view_as(out)
        grads = torch.autograd.grad(
            (out * weights).sum(), (z, quantizer.codebook), allow_unused=True
        )
        grad_z = torch.zeros_like(z) if grads[0] is None else grads[0]
        torch.testing.assert_close(grad_z, io[name + "grad_z"], **close)
        assert grads[1] is None or not grads[1].any()


def test_schedule(recording):
    run, io = recording.case.get("schedule"), recording.io
    if run is None:
        pytest.skip("this recording has no schedule")
    window = (run["anneal_start"], run["anneal_end"])
    part = build(
        LatentPerturbationConfig(
            rate=run["alpha"],
            neighbours=run["delta"],
            anneal=window,
            end_ratio=run["end_ratio"],
        )
    )
    rows = zip(
        *(io[f"schedule.{k}"].tolist() for k in ("epoch", "ratio", "alpha", "delta")), strict=True
    )
    for epoch, ratio, alpha, delta in rows:
        assert robustok_ratio(epoch, *window, run["end_ratio"]) == pytest.approx(ratio, abs=1e-12)
        rate, neighbours = part.strength(epoch)
        assert rate == pytest.approx(alpha, abs=1e-12) and neighbours == delta
