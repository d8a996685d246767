"""torch.compile runs the tokenizer and gives what eager mode gives."""

import shutil

import pytest
import torch

from vistok.dice import Draws
from vistok.records import Batch


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on CPUs")
def test_compiled_tokenizer_equals_eager(make_tokenizer):
    tokenizer = make_tokenizer()
    pixels = torch.rand(2, 3, 8, 8)
    draws = Draws(keep=torch.tensor([2, 4]))

    batch = Batch(torch.arange(2), pixels)
    with torch.no_grad():
        eager, compiled = tokenizer(batch, draws), torch.compile(tokenizer)(batch, draws)
    assert torch.equal(eager.quantized.indices, compiled.quantized.indices)
    assert torch.allclose(eager.pixels, compiled.pixels, atol=1e-5)
