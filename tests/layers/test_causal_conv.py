"""Causal 3D convolutions: no frame sees a later one, and pieces give the whole's result."""

import pytest
import torch
import torch.nn.functional as F

from vistok.core.errors import InputError
from vistok.layers.causal_conv import CausalChain, CausalConv3d, Stream

OPTIONS = {
    "plain": {},
    "zeros": {"time_mode": "zeros"},
    "strided": {"stride": (2, 2, 2), "space_padding": 1},
    "dilated": {"dilation": (2, 1, 1), "kernel": (3, 1, 1)},
    "around": {"space_mode": "replicate", "bias": False},
    "factor": {"kernel": (1, 3, 3)},
}


def conv(name):
    torch.manual_seed(0)
    return CausalConv3d(2, 3, **OPTIONS[name])


@pytest.fixture
def clip():
    return torch.randn(2, 2, 9, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_frame_does_not_depend_on_later_ones(name, clip):
    layer = conv(name)
    whole, stride = layer(clip), layer.stride[0]
    assert whole.shape[2] == 1 + 8 // stride
    for k in (0, 2, 4):
        changed = clip.clone()
        changed[:, :, k * stride + 1 :] += 1  # all after the last frame that output k may see
        again = layer(changed)
        assert torch.allclose(again[:, :, : k + 1], whole[:, :, : k + 1], atol=1e-6)
        if k < whole.shape[2] - 1:
            assert not torch.allclose(again[:, :, k + 1 :], whole[:, :, k + 1 :])


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("pieces", [(1, 2, 6), (3, 4, 2), (9,)])
def test_pieces_equal_the_whole(name, pieces, clip):
    chain = CausalChain(conv(name), CausalConv3d(3, 2, (3, 1, 1)))
    stream = Stream()
    found = torch.cat([chain(piece, stream) for piece in clip.split(pieces, 2)], 2)
    torch.testing.assert_close(found, chain(clip), atol=1e-6, rtol=0)


def test_padding_is_that_of_the_first_frame_or_of_zeros(clip):
    layer = CausalConv3d(2, 3, (3, 1, 1))
    copies = torch.cat([clip[:, :, :1], clip[:, :, :1], clip], 2)
    torch.testing.assert_close(layer(clip), F.conv3d(copies, layer.weight, layer.bias))
    layer.time_mode = "zeros"
    zeros = torch.cat([clip[:, :, :2] * 0, clip], 2)
    torch.testing.assert_close(layer(clip), F.conv3d(zeros, layer.weight, layer.bias))
    layer.time_mode = "reflect"
    mirrored = torch.cat([clip[:, :, 1:3].flip(2), clip], 2)
    torch.testing.assert_close(layer(clip), F.conv3d(mirrored, layer.weight, layer.bias))


def test_wrong_calls_are_one_line(clip):
    with pytest.raises(InputError, match="cannot come in pieces; use replicate or zeros"):
        CausalConv3d(2, 3, time_mode="reflect")(clip, Stream())
    with pytest.raises(InputError, match="needs 3 or more, got 1"):
        CausalConv3d(2, 3, time_mode="reflect")(clip[:, :, :1])
    stream, layer = Stream(), CausalConv3d(2, 3, stride=(2, 1, 1))
    with pytest.raises(InputError, match="expected 3 or more: feed 1"):
        layer(clip[:, :, :1], stream)
        layer(clip[:, :, 1:2], stream)
