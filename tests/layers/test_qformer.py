"""Q-Former: positions go to queries and keys alone; formulas against torch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vistok.config import validate
from vistok.layers.qformer import MixedAttention, QFormer, QFormerConfig, init_weights

CONFIG = QFormerConfig(width=8, depth=2, heads=2)


def inputs(queries: int = 5, memory: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, queries, 8), (queries, 8), (3, memory, 8), (memory, 8))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = MixedAttention(CONFIG), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        ours.qkv.bias.normal_()
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    q, _, k, _ = inputs()
    v = k + 1
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v, need_weights=False)[0])


def test_layers_are_the_formula():
    torch.manual_seed(0)
    net = QFormer(CONFIG)
    x, places, memory, memory_places = inputs()
    expected = x
    for block in net.blocks:
        y = F.layer_norm(expected, (8,), eps=1e-5)
        expected = expected + block.self_attention(y + places, y + places, y)
        y = F.layer_norm(expected, (8,), eps=1e-5)
        expected = expected + block.cross_attention(y + places, memory + memory_places, memory)
        y = F.layer_norm(expected, (8,), eps=1e-5)
        expected = expected + block.down(F.gelu(block.up(y)))
    found, seen = net(x, places, memory, memory_places, taps=(2,))
    torch.testing.assert_close(seen[2], expected)
    torch.testing.assert_close(found, F.layer_norm(expected, (8,), eps=1e-5))
    assert not net(x, places, memory, memory_places)[1]


def test_what_is_hidden_is_a_shorter_memory():
    torch.manual_seed(0)
    net = QFormer(CONFIG)
    x, places, memory, memory_places = inputs()
    present = (torch.arange(7) < 4).expand(3, -1)
    hidden, _ = net(x, places, memory, memory_places, present)
    short, _ = net(x, places, memory[:, :4], memory_places[:4])
    torch.testing.assert_close(hidden, short)
    assert not torch.allclose(hidden, net(x, places, memory, memory_places)[0], atol=1e-3)


def test_norms_of_queries_and_keys_are_per_head():
    attention = MixedAttention(QFormerConfig(width=8, depth=1, heads=2, qk_norm=True))
    assert attention.norm_q.weight.shape == (4,) and attention.norm_k.eps == 1e-5
    q, _, k, _ = inputs()
    # Keys that differ in scale alone are one key.
    with torch.no_grad():
        attention.qkv.bias.zero_()
    torch.testing.assert_close(attention(q, k, k), attention(q, 3 * k, k), atol=1e-4, rtol=1e-4)


def test_initialization_leaves_out_what_it_is_told():
    net = nn.ModuleDict({"qformer": QFormer(CONFIG), "last": nn.Linear(8, 4)})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    init_weights(net, "torch")
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    init_weights(net, "trunc_normal", but=(net["last"],))
    after = net.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(after[name], tensor)}
    assert "last.weight" in same and "qformer.blocks.0.self_attention.qkv.weight" in same
    assert "qformer.blocks.0.up.weight" not in same
    assert after["qformer.blocks.1.down.weight"].std() == pytest.approx(0.02, rel=0.3)
    assert not after["qformer.blocks.1.down.bias"].any()


def test_heads_divide_the_width(fails):
    with fails(ValueError, "width=8 must be a multiple of heads=3"):
        validate(QFormerConfig, {"width": 8, "heads": 3})
