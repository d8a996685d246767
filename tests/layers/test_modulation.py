"""Adaptive layer norm and time embeddings."""

import math

import torch

from vistok.layers.modulation import Modulation, TimeEmbedding, modulate


def test_it_starts_as_nothing_and_is_a_scale_and_a_shift():
    layer = Modulation(4, 3, 2)
    x, condition = torch.randn(2, 5, 3), torch.randn(2, 4)
    shift, scale = layer(condition)
    assert shift.shape == scale.shape == (2, 1, 3)
    assert torch.equal(modulate(x, shift, scale), x)
    with torch.no_grad():
        layer.proj.bias.copy_(torch.tensor([1.0, 2, 3, 4, 5, 6]))
    shift, scale = layer(condition)
    assert shift[0, 0].tolist() == [1, 2, 3] and scale[1, 0].tolist() == [4, 5, 6]
    assert torch.allclose(modulate(x, shift, scale)[1, 2, 1], x[1, 2, 1] * 6 + 2)
    layer.reset()
    assert not layer(condition)[0].any()


def test_time_embedding_by_hand():
    layer = TimeEmbedding(4, channels=4, max_period=256.0, scale=1000.0)
    seen = []
    layer.up.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert layer(torch.tensor([0.0, 0.002])).shape == (2, 4)
    # Frequencies 1 and 256 ** -0.5 = 1 / 16, of 1000 t; cosines first.
    expected = [math.cos(2), math.cos(2 / 16), math.sin(2), math.sin(2 / 16)]
    assert torch.allclose(seen[0][1], torch.tensor(expected), atol=1e-5)
    assert seen[0][0].tolist() == [1, 1, 0, 0]
