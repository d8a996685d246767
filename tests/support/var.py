"""Tiny VARs in their official layout, with random weights, and the VQ-VAE whose codes they read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.support.official import official
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, to_official

VAE_FILE = "vae_ch160v4096z32.pth"


def official_var(**changes) -> tuple[dict[str, Tensor], dict, dict[str, Tensor], dict]:
    """(state, config) of a generator, and (state, config) of its VQ-VAE.

    Args:
        changes: arguments of the official constructor.
    """
    _, vae, vae_config = official("var_vqvae")
    config = {
        "vae_kwargs": vae_config,
        "num_classes": 3,
        "depth": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "patch_nums": vae_config["v_patch_nums"],
        **changes,
    }
    family = FAMILIES["var"]
    model = Generator.from_description(family.config(config), "tiny")
    state, _ = to_official(model, "var")
    kept = family.fixed(model)
    torch.manual_seed(0)
    state = {key: one if key in kept else torch.randn_like(one) for key, one in state.items()}
    return state, config, vae, vae_config


def write_pair(folder: Path, **changes) -> tuple[dict[str, Tensor], dict]:
    """Both files beside each other, without configs but what no tensor tells; (state, config)."""
    state, config, vae, _ = official_var(**changes)
    torch.save(state, folder / "var_tiny.pth")
    torch.save(vae, folder / VAE_FILE)
    return state, config
