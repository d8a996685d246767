"""Latents of a VAE are cached once, and a tokenizer trains on them without running it."""

import copy

import pytest
import torch

from tests.support.latent_flow import latent_tree
from tests.support.training import TINY, cache_tree, lines
from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.data import PhotosConfig
from vistok.data.token_cache import TokenCache
from vistok.tokenizer import Tokenizer

pytest.importorskip("diffusers")


def tree(**task) -> dict:
    found = copy.deepcopy(TINY)
    found["task"] = {
        **{"kind": "tokenizer", "tokenizer": latent_tree(), "losses": [{"kind": "flow"}]},
        **{"validate_lengths": [], **task},
    }
    return found


def test_training_on_a_cached_space_is_training_on_its_images(run, tmp_path, fails, monkeypatch):
    first = run(tree(), "first", steps=1, warmup=0)
    caching = cache_tree(first)
    caching["task"] |= {"limit": None, "space": True}
    cache = run(caching, "cache")
    tokenizer = Tokenizer.from_pretrained(first / "model")
    photos = build(PhotosConfig(size=32, count=100, val_count=16)).open("train")
    kept = TokenCache(cache / "train")
    pixels = torch.stack([photos[i].pixels for i in (0, 7)]).float() / 255
    expected = tokenizer.input_space(pixels)
    found = torch.stack([kept.space(0), kept.space(7)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert kept.latents(0) is None

    cached = {"kind": "tokens", "path": str(cache / "train"), "val_path": str(cache / "val")}
    both = tree(init={"path": str(first), "parts": {"input_space": "input_space"}})
    on_images = run(both, "images", steps=3)
    calls = []
    encoder = "vistok.frozen.vae.Coder.posterior"
    original = tokenizer.input_space.vae.posterior.__func__
    monkeypatch.setattr(encoder, lambda *a: calls.append(1) or original(*a))
    on_cache = run(both, "cached", steps=3, data=cached)
    losses = [[row["flow"] for row in lines(folder)] for folder in (on_images, on_cache)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(calls) <= 3  # of validation and the image grid at the end, which look at images
    with fails(ConfigError, "reconstruction looks at images"):
        run(tree(losses=[{"kind": "reconstruction"}], init=both["task"]["init"]), data=cached)
    with fails(ConfigError, "another input_space"):
        run(tree(), "other", data=cached, seed=1)
    small = tree()
    small["task"]["tokenizer"]["image_size"] = 64
    with fails(ConfigError, r"cached space is \[4, 16, 16\]", r"\[4, 32, 32\]"):
        run(small, "small", data=cached)
