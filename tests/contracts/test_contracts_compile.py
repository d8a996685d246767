"""torch.compile takes the tokenizer in one graph and gives what eager mode gives."""

import shutil

import pytest
import torch

from vistok.dice import Draws
from vistok.records import Batch, Latents


def test_the_tokenizer_is_one_graph_forward_and_backward(make_tokenizer):
    tokenizer = make_tokenizer()
    batch = Batch(torch.arange(2), torch.rand(2, 3, 8, 8))
    draws = Draws(keep=torch.tensor([2, 4]))

    def gradients(model):
        tokenizer.zero_grad()
        result = model(batch, draws)
        (result.pixels - batch.pixels).square().mean().backward()
        return result, [p.grad.clone() for p in tokenizer.parameters()]

    eager, expected = gradients(tokenizer)
    # Traced and differentiated as inductor would have it, without its minute of g++.
    traced, found = gradients(torch.compile(tokenizer, backend="aot_eager", fullgraph=True))
    assert torch.equal(eager.quantized.indices, traced.quantized.indices)
    assert torch.allclose(eager.pixels, traced.pixels, atol=1e-6)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on CPUs")
def test_compiled_quantizer_equals_eager(make_tokenizer):
    model = make_tokenizer("bsq").quantizer
    latents = Latents(torch.randn(2, 4, model.latent_dim), (4,))
    with torch.no_grad():
        eager, compiled = model(latents), torch.compile(model, fullgraph=True)(latents)
    assert torch.equal(eager.indices, compiled.indices)
    assert torch.allclose(eager.values, compiled.values, atol=1e-6)
    for name, value in eager.losses.items():
        assert torch.allclose(value, compiled.losses[name], atol=1e-5)
