"""One list of bits, images of several sizes."""

import pytest
import torch

from tests.support.recipes import TINY, read_config
from vistok.core.records import Batch, Condition
from vistok.tokenizer import Tokenizer


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return Tokenizer(read_config(TINY["instella"]).task.tokenizer).eval()


def image(count=2, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_bits_decode_to_two_sizes_and_their_own(tokenizer):
    tokens = tokenizer.encode(image())
    default = tokenizer.decode(tokens)
    assert default.shape == (2, 3, 32, 32) == (2, 3, *tokenizer.shape.sides)
    for sides in ((64, 64), (48, 96)):
        pixels = tokenizer.decode(tokens, Condition(sides=sides))
        assert pixels.shape == (2, 3, *sides) and pixels.isfinite().all()
        one = tokenizer.decode(tokens.select(slice(1, 2)), Condition(sides=sides))
        assert torch.allclose(one, pixels[1:], atol=1e-6)
    assert torch.equal(tokenizer.decode(tokens, Condition(sides=(32, 32))), default)
    assert torch.equal(tokenizer.decode(tokens), default)


def test_a_pass_with_gradients_obeys_the_sides(tokenizer):
    batch = Batch(torch.arange(2), image(), target=image(side=64))
    result = tokenizer(batch, condition=Condition(sides=(64, 64)))
    (result.pixels - result.target).square().mean().backward()
    assert all(p.grad.any() for p in tokenizer.decoder.parameters())


def test_an_image_keeps_its_layout_in_another_size():
    """With stretched positions the corners of a cell grid are the corners of any other."""
    config = read_config(TINY["instella"]).task.tokenizer
    torch.manual_seed(0)
    decoder = Tokenizer(config).decoder.eval()
    values = torch.randn(1, 8, 32)
    rotary = {}
    for sides in ((32, 32), (64, 64)):
        decoder(values, condition=Condition(sides=sides))
        grid = tuple(side // 4 for side in sides)
        tables, _ = decoder.transformer._places(8, grid, 16.0, None, values)
        rotary[sides] = tables[0][8:].view(*grid, -1)
    small, large = rotary.values()
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(small[corner], large[corner], atol=1e-6)


def test_other_tokenizers_say_that_they_have_one_size(make_tokenizer, tokenizer, fails):
    plain = make_tokenizer()
    tokens = plain.encode(torch.rand(1, 3, *plain.shape.sides))
    own = plain.decode(tokens, Condition(sides=plain.shape.sides))
    assert torch.equal(own, plain.decode(tokens))
    with fails(ValueError, r"sides=\(64, 64\): this tokenizer decodes to \(8, 8\) only"):
        plain.decode(tokens, Condition(sides=(64, 64)))
    tokens = tokenizer.encode(image())
    with fails(ValueError, r"sides=\(60, 60\) are no multiples of 8"):
        tokenizer.decode(tokens, Condition(sides=(60, 60)))
    with fails(ValueError, "ask for a smaller image"):
        tokenizer.decode(tokens, Condition(sides=(2**14, 2**14)))
