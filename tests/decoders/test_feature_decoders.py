"""Decoders of semantic tokens: features out of values (SEED), pixels out of features (MingTok)."""

import pytest
import torch

from vistok.contracts.case import tiny
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.decoders.expanding import ExpandingConfig, ExpandingDecoder
from vistok.decoders.feature_qformer import FeatureQFormerConfig, FeatureQFormerDecoder
from vistok.losses.probe import width_of

SHAPE = Shape(3, (8, 8))


def expanding(**config) -> ExpandingDecoder:
    torch.manual_seed(0)
    tiny = ExpandingConfig.tiny().model_copy(update=config)
    return ExpandingDecoder(tiny, SHAPE, ((2, 2),), 4).eval()


@torch.no_grad()
def test_features_of_the_first_values_do_not_see_the_others():
    decoder, values = expanding(shortcut=True), torch.randn(2, 4, 4)
    whole = decoder(values).features["semantic"]
    torch.testing.assert_close(decoder.features(values[:, :3]), whole[:, :3])
    other = values.clone()
    other[:, 3] += 1
    changed = decoder(other)
    assert torch.equal(changed.features["semantic"][:, :3], whole[:, :3])
    # Pixels of all places depend on all values: the second transformer sees everything.
    assert (changed.estimate - decoder(values).estimate)[:, :, :4, :4].abs().max() > 0


@torch.no_grad()
def test_the_shortcut_repeats_each_channel():
    decoder = expanding(shortcut=True)  # 4 channels, 16 wide
    seen = []
    decoder.positions.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    values = torch.randn(1, 4, 4)
    decoder(values)
    added = seen[0] - decoder.embed(values)
    torch.testing.assert_close(added, values.repeat_interleave(4, dim=-1))


@torch.no_grad()
def test_a_row_of_features_becomes_a_block_of_cells():
    decoder, seen = expanding(), []
    decoder.fine_positions.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    values = torch.randn(1, 4, 4)
    features = decoder.features(values)
    decoder(values)
    rows = decoder.split(features).unflatten(-1, (2, 2, 16))  # [B, M, row, column, W]
    cells = seen[0].unflatten(1, (4, 4))
    torch.testing.assert_close(cells[0, :2, 2:], rows[0, 1])  # the second value, top right
    torch.testing.assert_close(cells[0, 2:, :2], rows[0, 2])


def test_what_an_expanding_decoder_refuses():
    with pytest.raises(InputError, match="expected a multiple of them, or shortcut=false"):
        ExpandingDecoder(
            ExpandingConfig.tiny().model_copy(update={"shortcut": True}), SHAPE, ((2, 2),), 3
        )
    with pytest.raises(InputError, match="6 values, each of 2 x 2 patches, do not cover"):
        ExpandingDecoder(ExpandingConfig.tiny(), SHAPE, ((2, 3),), 4)
    with pytest.raises(InputError, match="not clips"):
        ExpandingDecoder(ExpandingConfig.tiny(), Shape(3, (2, 8, 8)), ((2, 2),), 4)
    with pytest.raises(InputError, match="needs all values"):
        expanding()(torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool))


def semantic(**config) -> FeatureQFormerDecoder:
    torch.manual_seed(0)
    tiny = FeatureQFormerConfig.tiny().model_copy(update=config)
    return FeatureQFormerDecoder(tiny, Shape(5, (1, 2)), ((4,),), 3).eval()


@torch.no_grad()
def test_a_feature_decoder_gives_features_and_what_queries_had_read():
    decoder, values = semantic(rebuilds=True), torch.randn(2, 4, 3)
    found = decoder(values)
    assert found.estimate.shape == (2, 5, 1, 2) and found.features["queries"].shape == (2, 4, 16)
    assert semantic()(values).features == {}


@torch.no_grad()
def test_values_that_are_left_out_do_not_matter():
    decoder, values = semantic(missing="drop"), torch.randn(2, 4, 3)
    present = torch.arange(4) < torch.tensor([[2], [2]])
    short = decoder(values, present).estimate
    torch.testing.assert_close(decoder(values[:, :2]).estimate, short, atol=1e-5, rtol=1e-5)
    assert decoder.prefix == "token" and semantic().prefix == "none"
    with pytest.raises(InputError, match="missing=drop"):
        semantic()(values, present)


def test_pixels_come_from_the_decoder_of_the_features_space():
    inner = {"kind": "vit", "patches": {"size": 8}, "missing": "refuse"}
    inner["transformer"] = {"width": 16, "depth": 1, "heads": 2}
    space = {"kind": "features", "pooled": True, "decoder": inner}
    decoder = FeatureQFormerConfig.tiny().model_dump(mode="json")
    tokenizer = tiny(image_size=32, decoder=decoder, output_space=space).eval()
    images = torch.rand(2, 3, 32, 32)
    assert tokenizer.output_space.shape.sides == (1, 1)
    target = tokenizer.output_space(images)
    pooled = tokenizer.output_space.network.look(images, None).pooled
    torch.testing.assert_close(target[:, :, 0, 0], pooled)
    assert tokenizer.decode(tokenizer.encode(images)).shape == images.shape
    keys = [key for key in tokenizer.state_dict() if key.startswith("output_space.")]
    assert keys and all(key.startswith("output_space.decoder.") for key in keys)


def test_a_network_that_both_spaces_share_keeps_its_weights_when_widths_are_looked_up():
    inner = {"kind": "vit", "patches": {"size": 8}, "missing": "refuse"}
    decoder = FeatureQFormerConfig.tiny().model_dump(mode="json") | {"rebuilds": True}
    queries = {"width": 16, "depth": 1, "heads": 2}
    encoder = {"kind": "causal_qformer", "count": 4, "queries": queries}
    tokenizer = tiny(
        image_size=32,
        input_space={"kind": "features"},
        output_space={"kind": "features", "decoder": inner},
        encoder=encoder,
        decoder=decoder,
    )
    assert tokenizer.input_space.network is tokenizer.output_space.network
    assert width_of(tokenizer, "decoder", "queries") == 16
    assert {type(p) for p in tokenizer.parameters()} == {torch.nn.Parameter}
    tokenizer.to("cpu")
