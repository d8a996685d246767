"""Tokens sampled from a cached posterior: others in every epoch, the means when held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vistok.config import validate
from vistok.config.registry import build, entries
from vistok.data import TokenCacheWriter
from vistok.data.base import DataError
from vistok.data.token_cache import ArraySpec
from vistok.tokens import Tokens, TokenSpec

SPEC = TokenSpec(blocks=((4,),), vocab=(), dim=2)


def cached(folder: Path, latents: torch.Tensor | None) -> Path:
    mean = torch.zeros(400, 4, 2) if latents is None else latents[..., :2]
    arrays = {} if latents is None else {"latents": ArraySpec.of(latents)}
    options = {"source": {}, "tokenizer": "t", "sha256": "0", "arrays": arrays}
    with TokenCacheWriter(folder, SPEC, 400, **options) as writer:
        writer.write(Tokens(SPEC, values=mean), latents=latents)
    return folder


def opened(path: Path, split: str = "train", **changes):
    tree = {"path": str(path), "val_share": 0.5, "posterior": True, **changes}
    return build(validate(entries("data")["tokens"].config, tree)).open(split)


def test_training_samples_and_validation_takes_the_means(tmp_path):
    mean, std = torch.randn(400, 4, 2), torch.tensor([0.5, 2.0])
    latents = torch.cat([mean, 2 * std.log().expand(400, 4, 2)], dim=-1)
    path = cached(tmp_path / "tokens", latents)
    data, means = opened(path), opened(path, posterior=False)
    read = lambda one, epoch: torch.stack([one.sample(i, epoch, 7).tokens for i in range(len(one))])
    noise = read(data, 1) - read(means, 1)
    torch.testing.assert_close(noise.std((0, 1)), std, rtol=0.1, atol=0)
    assert torch.equal(read(data, 1), read(data, 1))
    assert not torch.equal(read(data, 1), read(data, 2))
    held_out, plain = (opened(path, "val", posterior=on) for on in (True, False))
    assert torch.equal(read(held_out, 1), read(plain, 1))
    assert data.sample(0).latents is None and "latents" not in data.features


@pytest.mark.parametrize("channels", [None, 2])
def test_a_cache_without_a_posterior_is_named(tmp_path, fails, channels):
    path = cached(tmp_path / "t", None if channels is None else torch.zeros(400, 4, channels))
    with fails(DataError, r"posterior=true .*their latents \[4, 4\]: .*task.latents=true"):
        opened(path)
