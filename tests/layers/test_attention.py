"""Attention, masks, the KV cache and the transformer."""

import math

import pytest
import torch

from vistok.core.rng import Rng
from vistok.layers.attention import Attention, KVCache
from vistok.layers.dropout import keyed
from vistok.layers.masks import causal_last, joined
from vistok.layers.positions import rotary_table
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


def transformer(**options) -> Transformer:
    config = TransformerConfig(**{"width": 16, "depth": 2, "heads": 2} | options)
    model = Transformer(config)
    init_weights(model, config)
    return model.eval()


def test_causal_last_mask():
    # two patches, three latents
    assert causal_last(2, 3).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_visible_mask():
    mask = joined(3, torch.tensor([[True, False], [True, True]]), batch=2, device="cpu")
    assert mask.shape == (2, 1, 1, 5)
    assert mask[:, 0, 0].int().tolist() == [[1, 1, 1, 1, 0], [1] * 5]


@pytest.mark.parametrize("norm", [None, "rmsnorm", "layernorm"])
def test_attention_is_the_formula(norm):
    layer = Attention(12, 3, qk_norm=norm is not None, qk_norm_kind=norm or "rmsnorm")
    x = torch.randn(2, 5, 12)
    q, k, v = layer.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    if norm == "layernorm":
        q, k = (t - t.mean(-1, keepdim=True) for t in (q, k))
    if norm is not None:
        q, k = (t / t.square().mean(-1, keepdim=True).add(1e-6).sqrt() for t in (q, k))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).reshape(2, 5, 12))
    assert torch.allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_attention_weights(causal):
    """In training a share of the weights is zero, and the others are scaled up; keyed by sample."""
    layer, x = Attention(12, 3, dropout=0.5), torch.randn(2, 5, 12)
    q, k, v = layer.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(4)
    if causal:
        scores = scores.masked_fill(torch.ones(5, 5).triu(1) > 0, -math.inf)
    layers = {"a": layer.dropout}
    with keyed(layers, Rng(0, "dropout"), torch.arange(2), torch.device("cpu")):
        weights = layer.dropout(scores.softmax(-1))
        expected = layer.out((weights @ v).transpose(1, 2).reshape(2, 5, 12))
        found, one = layer(x, causal=causal), layer.dropout.keys
        layer.dropout.keys = one[1:]
        alone = layer(x[1:], causal=causal)
    assert torch.allclose(found, expected, atol=1e-6) and torch.allclose(alone, found[1:])
    assert (weights == 0).sum() > (25 if causal else 10)
    plain = layer.eval()(x, causal=causal)
    whole = layer.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12))
    assert torch.allclose(plain, whole, atol=1e-6) and not torch.allclose(plain, found)


@pytest.mark.parametrize(
    "mask", [None, causal_last(3, 4), joined(3, torch.eye(2, 4) > 0, batch=2, device="cpu")]
)
@pytest.mark.parametrize("only", [slice(3, None), slice(3)], ids=["last", "first"])
def test_wanted_positions_are_those_of_the_whole_run(mask, only):
    model, x, rotary = transformer(), torch.randn(2, 7, 16), rotary_table(torch.rand(7, 1), 8)
    whole = model(x, rotary, mask)[:, only]
    expected = torch.autograd.grad(whole.square().sum(), [*model.parameters()])
    part = model(x, rotary, mask, only=only)
    assert torch.allclose(part, whole, atol=1e-5)
    found = torch.autograd.grad(part.square().sum(), [*model.parameters()])
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_last_block_works_on_wanted_positions_alone():
    model, rows = transformer(), []
    model.blocks[0].mlp.register_forward_hook(lambda _, inputs, out: rows.append(out.shape[1]))
    model.blocks[1].mlp.register_forward_hook(lambda _, inputs, out: rows.append(out.shape[1]))
    model(torch.randn(2, 7, 16), only=slice(5, None))
    assert rows == [7, 2]


def test_wanted_positions_of_a_causal_run_are_refused(fails):
    with fails(ValueError, "causal", "mask"):
        transformer()(torch.randn(1, 3, 16), causal=True, only=slice(1))


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "mlp": "swiglu", "norm": "rmsnorm"}])
@pytest.mark.parametrize("rope", [False, True])
def test_cached_steps_equal_one_causal_run(options, rope):
    model = transformer(**options)
    x = torch.randn(3, 7, 16)
    rotary = rotary_table(torch.arange(7.0)[:, None], 8) if rope else None
    part = lambda a, b: None if rotary is None else tuple(t[a:b] for t in rotary)
    whole = model(x, rotary, causal=True)
    for cuts in ([1] * 7, [3, 1, 3], [7], [2, 5]):
        caches, outputs, at = model.new_caches(3, 7, x), [], 0
        for n in cuts:
            outputs.append(model(x[:, at : at + n], part(at, at + n), causal=True, caches=caches))
            at += n
        assert torch.allclose(torch.cat(outputs, 1), whole, atol=1e-5)
        assert caches[0].length == 7


def test_causal_runs_do_not_see_the_future():
    model, x = transformer(), torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4] = -x[:, 4]
    a, b = model(x, causal=True), model(changed, causal=True)
    assert torch.equal(a[:, :4], b[:, :4]) and not torch.allclose(a[:, 4:], b[:, 4:], atol=1e-3)
    c = model(changed)
    assert not torch.allclose(c[:, :4], model(x)[:, :4], atol=1e-4)


def test_a_cache_keeps_its_order():
    cache = KVCache(1, 1, 3, 2, torch.zeros(1))
    for i in range(3):
        keys, values = cache.append(torch.full((1, 1, 1, 2), i + 1.0), torch.zeros(1, 1, 1, 2))
    assert keys[0, 0, :, 0].tolist() == [1, 2, 3] and values.shape == (1, 1, 3, 2)


def test_keys_that_are_cut_equal_a_shorter_sequence():
    model, x = transformer(), torch.randn(2, 9, 16)
    present = torch.arange(5)[None] < torch.tensor([[2], [4]])
    y = model(x, mask=joined(4, present, batch=len(present), device="cpu"))
    for row, kept in enumerate((2, 4)):
        alone = model(x[row : row + 1, : 4 + kept])
        assert torch.allclose(y[row, : 4 + kept], alone[0], atol=1e-5)


def test_layer_scale_starts_as_a_gain():
    model, x = transformer(layer_scale=0.0), torch.randn(1, 3, 16)
    assert torch.equal(model(x), model.norm(x))


def test_fan_in_initialization():
    config = TransformerConfig(width=128, depth=2, heads=4)
    model = Transformer(config)
    init_weights(model, config)
    block = model.blocks[0]
    # truncated at three deviations: 0.987 of them
    assert float(block.mlp.up.weight.detach().std()) == pytest.approx(0.987 * 128**-0.5, rel=0.02)
    assert float(block.mlp.out.weight.detach().std()) == pytest.approx(
        0.987 * 512**-0.5 / 2, rel=0.02
    )  # by sqrt(2 x depth 2)
    assert not block.mlp.up.bias.any()


@pytest.mark.parametrize("wrong", [{"width": 10, "heads": 4}, {"width": 12, "heads": 4}])
def test_widths_that_do_not_divide(wrong):
    with pytest.raises(ValueError, match=f"width={wrong['width']}.*heads=4"):
        TransformerConfig(**wrong)


@pytest.mark.parametrize("how", ["full", "causal", "mask"])
def test_bf16_is_near_fp32(how):
    # On CPUs bf16 goes another way than torch's fused kernel.
    layer, x = Attention(16, 2), torch.randn(2, 6, 16)
    mask = (
        joined(4, torch.tensor([[True, False], [True, True]]), batch=2, device="cpu")
        if how == "mask"
        else None
    )
    expected = layer(x, mask=mask, causal=how == "causal")
    found = layer.bfloat16()(x.bfloat16(), mask=mask, causal=how == "causal")
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.03)
