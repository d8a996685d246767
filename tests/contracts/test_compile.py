"""torch.compile takes the tokenizer in one graph and gives what eager mode gives."""

import shutil

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition, Latents
from vistok.core.schedules import Progress
from vistok.tokenizer import Tokenizer


def test_the_tokenizer_is_one_graph_forward_and_backward(make_tokenizer):
    batch = Batch(torch.arange(2), torch.rand(2, 3, 8, 8))
    _compare(make_tokenizer(), batch, Draws(keep=torch.tensor([2, 4])))


VIT = [f"task.tokenizer.{side}.transformer.depth=1" for side in ("encoder", "decoder")]
CNN = [f"task.tokenizer.{side}.conv.channel_mult=[1,2]" for side in ("encoder", "decoder")]
PYRAMID = [f"task.tokenizer.{side}.transformer.depth=1" for side in ("encoder", "decoder")]
PYRAMID += ["task.tokenizer.encoder.resample_after=[]", "task.tokenizer.decoder.taps.repa=1"]
ONE_BLOCK = {  # or two of a pyramid: the others are traced alike
    "instella": PYRAMID,
    "maskgit_vqgan": CNN,
    "one_d_piece_stage2": VIT,
    "titok_vae": VIT,
    "textok": VIT,
    "video_vit": VIT,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_BLOCK)
def test_so_are_those_of_the_tiny_recipes(name):
    """One of each kind: convolutions, the codes of another tokenizer, Gaussian latents, text,
    clips, bits."""
    config = read_config(TINY[name], *ONE_BLOCK[name]).task.tokenizer
    tokenizer = Tokenizer(config).eval()
    batch = Batch(torch.arange(2), torch.rand(2, 3, *config.shape.sides))
    condition = None
    if config.text is not None:
        features = torch.randn(2, config.text.length, config.decoder.text.dim)
        condition = Condition(text=features, text_mask=torch.rand(2, config.text.length) < 0.7)
    _compare(tokenizer, batch, tokenizer.draw(batch.index, 0, Progress(0, 1)), condition)


def _compare(tokenizer, batch, draws, condition=None):
    def gradients(model):
        tokenizer.zero_grad()
        result = model(batch, draws, condition)
        (result.pixels - batch.pixels).square().mean().backward()
        # A parameter that the loss does not reach has no gradient, or one of zeros.
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in tokenizer.parameters()]
        return result, [grad.clone() for grad in grads]

    eager, expected = gradients(tokenizer)
    # Traced and differentiated as inductor would have it, without its minute of g++.
    traced, found = gradients(torch.compile(tokenizer, backend="aot_eager", fullgraph=True))
    if eager.quantized.indices is not None:
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
