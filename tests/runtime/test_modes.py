"""Evaluation mode for a while, and what several threads see of one model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from vistok.runtime.modes import evaluating, without_gradients


def test_each_part_gets_its_own_mode_back():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    module.train()
    module[1].eval()
    with pytest.raises(RuntimeError), evaluating(module):
        assert not any(part.training for part in module.modules())
        raise RuntimeError
    assert [part.training for part in module.modules()] == [True, True, False, False]


def test_blocks_that_overlap_give_the_mode_back_at_the_last_end():
    module = nn.Sequential(nn.Dropout())
    first, second, part = evaluating(module), evaluating(module), evaluating(module[0])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not module.training and not module[0].training
    part.__enter__()
    second.__exit__(None, None, None)
    assert module.training and not module[0].training
    part.__exit__(None, None, None)
    assert module[0].training


def test_gradients_are_asked_for_again_at_the_last_end():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    first, second = without_gradients(module), without_gradients(module)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not module.weight.requires_grad
    second.__exit__(None, None, None)
    assert module.weight.requires_grad and not module.bias.requires_grad


def test_threads_get_what_one_thread_gets(tree):
    """A model in training mode: dropout and codebook updates must stay off in every thread."""
    from vistok.config import validate
    from vistok.tokenizer import Tokenizer, TokenizerConfig

    config = tree("vq_ema")
    for part in ("encoder", "decoder"):
        config[part]["transformer"] |= {"dropout": 0.5}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).train()
    pixels = [torch.rand(1, 3, 8, 8) for _ in range(8)]

    def both(one: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokenizer.encode(one)
        return tokens.indices, tokenizer.decode(tokens)

    expected = [both(one) for one in pixels]
    with ThreadPoolExecutor(8) as pool:
        for number, (indices, back) in enumerate(pool.map(both, pixels * 12)):
            assert torch.equal(indices, expected[number % 8][0])
            assert torch.equal(back, expected[number % 8][1])
    assert all(part.training for part in tokenizer.encoder.modules())
