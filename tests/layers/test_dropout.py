"""Network dropout: a sample's mask is a function of its key and the layer."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from vistok.core.rng import Rng
from vistok.layers.dropout import Dropout, DropPath, kept, keyed, layers_of, splitmix64
from vistok.layers.transformer import Transformer, TransformerConfig

GOLDEN = 0x9E3779B97F4A7C15
CPU = torch.device("cpu")


def test_numbers_are_those_of_splitmix64():
    """The published outputs of the seed 1234567."""
    state = torch.tensor([(1234567 + n * GOLDEN) % 2**64 for n in range(1, 6)], dtype=torch.uint64)
    words = [int(word) % 2**64 for word in splitmix64(state.view(torch.int64))]
    assert words == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_the_share_and_the_mean(p):
    layer, x = Dropout(p), torch.ones(16, 250, 40)
    with keyed({"a": layer}, Rng(0, "dropout", 3), torch.arange(16), CPU):
        y = layer(x)
    dropped = (y == 0).float().mean(dim=(1, 2))
    assert ((dropped - p).abs() < 5 * (p * (1 - p) / 10_000) ** 0.5).all()
    assert torch.allclose(y.max(), torch.tensor(1 / (1 - p)), rtol=2e-4 / (1 - p))
    assert y.mean().item() == pytest.approx(1, abs=0.03)


def masks(index, seed=0, step=0, name="a", shape=(5, 7)):
    layer = Dropout(0.5)
    with keyed({name: layer}, Rng(seed, "dropout", step), torch.tensor(index), CPU):
        return layer(torch.ones(len(index), *shape))


def test_a_mask_belongs_to_seed_step_sample_and_layer():
    whole = masks([4, 9, 7])
    assert torch.equal(masks([9]), whole[1:2])
    assert torch.equal(masks([7, 4]), whole[[2, 0]])
    for other in (masks([4, 9, 7], seed=1), masks([4, 9, 7], step=1), masks([4, 9, 7], name="b")):
        agree = (other == whole).float().mean()
        assert 0.3 < agree < 0.7
    assert not torch.equal(whole[0], whole[1])


def test_rows_of_one_sample_lie_together():
    layer, x = Dropout(0.5), torch.ones(6, 5)
    with keyed({"a": layer}, Rng(0, "dropout"), torch.tensor([4, 9]), CPU):
        y = layer(x)
    assert torch.equal(y.view(2, 15), masks([4, 9], shape=(15,)))


def test_gradients_pass_where_activations_do():
    layer, x = Dropout(0.5), torch.randn(4, 9, requires_grad=True)
    with keyed({"a": layer}, Rng(0, "dropout"), torch.arange(4), CPU):
        y = layer(x)
    y.sum().backward()
    assert torch.equal(x.grad, masks([0, 1, 2, 3], shape=(9,)))


def test_low_precision_is_kept():
    layer = Dropout(0.1)
    with keyed({"a": layer}, Rng(0, "dropout"), torch.arange(2), CPU):
        assert layer(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_without_keys_it_is_torchs_dropout_and_in_evaluation_nothing():
    layer, x = Dropout(0.5), torch.ones(4, 9)
    torch.manual_seed(0)
    own = layer(x)
    torch.manual_seed(0)
    assert torch.equal(own, nn.functional.dropout(x, 0.5))
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_keys_are_gone_after_an_error_too():
    layer = Dropout(0.5)
    with pytest.raises(RuntimeError), keyed({"a": layer}, Rng(0), torch.arange(2), CPU):
        raise RuntimeError
    assert layer.keys is None


def test_layers_that_drop_nothing_are_not_keyed():
    module = nn.Sequential(Dropout(0.0), nn.Sequential(Dropout(0.1)))
    assert list(layers_of({"net": module})) == ["net.1.0"]


def test_a_tiny_share_drops_something():
    dropped = ~kept(torch.arange(4), 2**18, drop=1)  # four of each row are expected
    assert 4 < dropped.sum() < 40
    layer = Dropout(1e-9)
    layer.keys = torch.arange(4)
    assert (layer(torch.ones(4, 2**18)) == 0).any()


def paths(index, step=0, rows=1):
    layer = DropPath(0.3)
    with keyed({"a": layer}, Rng(0, "dropout", step), torch.tensor(index), CPU):
        return layer(torch.ones(len(index) * rows, 5, 7)), layer


def test_stochastic_depth_drops_whole_samples_by_their_keys():
    y, layer = paths(list(range(2000)))
    assert ((y == 0).all(dim=(1, 2)) | (y == y[0].max()).all(dim=(1, 2))).all()
    assert y.max().item() == pytest.approx(1 / 0.7, rel=1e-4)
    assert (y[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(paths([9, 4])[0], y[[9, 4]])
    assert not torch.equal(paths(list(range(2000)), step=1)[0], y)
    assert torch.equal(paths(list(range(50)), rows=3)[0], y[:50].repeat_interleave(3, 0))
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16  # without keys
    assert layer.eval()(x) is x


def test_later_blocks_are_skipped_more_often():
    trunk = Transformer(TransformerConfig(width=16, depth=3, heads=2, drop_path=0.2))
    assert [block.skip_mlp.p for block in trunk.blocks] == pytest.approx([0, 0.1, 0.2])
    assert len(layers_of({"trunk": trunk})) == 4
    x = torch.randn(2, 5, 16)
    for layer in layers_of({"trunk": trunk}).values():
        layer.p = 1 - 1e-9  # all but never kept
        layer.keys = torch.arange(2)
    first = trunk.norm(trunk.blocks[0](x))
    assert torch.equal(trunk(x), first)
    assert not torch.equal(trunk.eval()(x), first)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "swiglu"])
def test_hidden_activations_of_feed_forward_layers_are_dropped(kind):
    torch.manual_seed(0)
    config = TransformerConfig(width=8, depth=1, heads=2, mlp=kind, mlp_dropout=0.5)
    block, x = Transformer(config).blocks[0], torch.randn(3, 4, 8)
    hidden = []
    block.mlp.out.register_forward_pre_hook(lambda module, args: hidden.append(args[0]))
    layers = layers_of({"block": block})
    assert set(layers) == {"block.mlp.dropout"}
    with keyed(layers, Rng(0, "dropout"), torch.arange(3), CPU):
        block(x)
    block.eval()(x)
    dropped, whole = hidden
    assert 0.3 < (dropped == 0).float().mean() < 0.7
    assert torch.allclose(dropped, whole * 2 * (dropped != 0), atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on CPUs")
@pytest.mark.parametrize("shape", [(17, 32), (2, 17, 17), (5,)], ids=str)
def test_compiled_it_drops_the_same(shape):
    layer, x = Dropout(0.3), torch.randn(4, *shape)
    with keyed({"a": layer}, Rng(0, "dropout"), torch.arange(4), CPU):
        assert torch.equal(torch.compile(layer, fullgraph=True)(x), layer(x))
