"""A trunk whose grid is halved or doubled: positions, shortcuts, several and no resamplings."""

import pytest
import torch

from vistok.config import validate
from vistok.core.shapes import Shape
from vistok.decoders.pyramid import PyramidDecoder, PyramidDecoderConfig
from vistok.encoders.pyramid import PyramidEncoder, PyramidEncoderConfig
from vistok.layers.positions import MixedTables, axis_angles, rotate
from vistok.layers.pyramid import Double, Halve, Pyramid


def trunk(depth=3, **options) -> dict:
    inner = {"width": 16, "depth": depth, "heads": 2, "mlp": "swiglu", "norm": "rmsnorm"}
    inner |= {"qk_norm": True, "bias": False}
    rotary = {"channels": [2, 2, 4], **options.pop("rotary", {})}
    return {"patch_size": 2, "transformer": inner, "rotary": rotary, **options}


def encoder(sides=(16, 24), **options) -> PyramidEncoder:
    torch.manual_seed(0)
    config = validate(PyramidEncoderConfig, {"latents": 3, **trunk(**options)})
    return PyramidEncoder(config, Shape(3, sides), 5)


def decoder(sides=(16, 24), **options) -> PyramidDecoder:
    torch.manual_seed(0)
    config = validate(PyramidDecoderConfig, trunk(**options))
    return PyramidDecoder(config, Shape(3, sides), ((3,),), 5)


# -- resampling ------------------------------------------------------------------------------------


def without_conv(layer):
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    return layer


def test_shortcuts_by_hand():
    # Two channels, one 2x2 block each: unshuffled 0 1 2 3 | 10 11 12 13, in groups of four.
    x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[10.0, 11.0], [12.0, 13.0]]]])
    assert without_conv(Halve(2))(x).flatten().tolist() == [1.5, 11.5]
    # Each channel four times, then as the four cells of a block.
    small = torch.tensor([[[[1.0]], [[2.0]]]])
    assert torch.equal(without_conv(Double(2))(small)[0, 0], torch.full((2, 2), 1.0))
    assert torch.equal(without_conv(Double(2))(small)[0, 1], torch.full((2, 2), 2.0))


def test_what_was_doubled_is_halved_to_itself():
    x = torch.randn(2, 8, 3, 5)
    assert torch.allclose(without_conv(Halve(8))(without_conv(Double(8))(x)), x, atol=1e-6)


@pytest.mark.parametrize("after", [[], [3], [1, 2], [1, 2, 3]])
def test_any_number_of_resamplings(after):
    x = torch.rand(2, 3, 16, 48)
    latents = encoder((16, 48), resample_after=after)(x)
    assert latents.values.shape == (2, 3, 5) and latents.grids == ((3,),)
    image = decoder((16, 48), resample_after=after)(latents.values).prediction
    assert image.shape == (2, 3, 16, 48) and image.isfinite().all()


def test_nobody_reads_the_cells_behind_the_last_block_of_an_encoder():
    module = encoder(resample_after=[1, 3])
    module(torch.rand(1, 3, 16, 24)).values.sum().backward()
    first, last = module.transformer.resamplers
    assert first.conv.weight.grad.any() and last.conv.weight.grad is None


def test_taps_see_the_grid_as_it_is_at_that_block():
    seen = decoder(resample_after=[2], taps={"coarse": 2, "fine": 3})(torch.randn(1, 3, 5)).features
    assert seen["coarse"].shape == (1, 4 * 6, 16)
    assert seen["fine"].shape == (1, 8 * 12, 16) == seen["grid"].shape
    latents = encoder(taps={"early": 1})(torch.rand(1, 3, 16, 24))
    assert latents.features["early"].shape == (1, 3, 16)


# -- positions -------------------------------------------------------------------------------------


def test_angles_of_uneven_axes_by_hand():
    angles = axis_angles(torch.tensor([[2.0, 3.0, 5.0]]), (2, 0, 4), base=100.0)
    assert torch.allclose(angles, torch.tensor([[2.0, 5.0, 0.5]], dtype=torch.float64))


def test_mixed_tables_by_hand():
    angles = torch.tensor([[0.3, 1.1]], dtype=torch.float64)
    x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    cos, sin = angles.cos()[0], angles.sin()[0]
    expected = [
        1 * cos[0] - 3 * sin[0],
        2 * cos[0] - 4 * sin[0],
        3 * cos[1] + 1 * sin[1],
        4 * cos[1] + 2 * sin[1],
    ]
    found = rotate(x, MixedTables.of(angles.float()))
    assert torch.allclose(found.flatten().double(), torch.stack(expected), atol=1e-6)
    turned = rotate(x, (angles.cos().float(), angles.sin().float()))
    assert torch.allclose(turned.norm(), x.norm()) and not torch.allclose(turned, found)


def places(module: Pyramid, grid, scale):
    """Angles of the first pair of rows and of columns of the cells."""
    rotary, _ = module._places(2, grid, scale, None, torch.zeros(1, 1))
    cos, sin = (table[2:].view(*grid, -1) for table in rotary)
    angle = torch.atan2(sin, cos)
    return angle[:, 0, 1], angle[0, :, 2]


def test_an_image_of_any_size_spans_the_same_positions():
    module = encoder(rotary={"extent": 6}, resample_after=[1]).transformer
    assert module.scale == 3.0
    for grid in ((2, 4), (8, 12)):
        rows, columns = places(module, grid, module.scale)
        assert torch.allclose(rows, torch.linspace(0, 2, grid[0]))
        assert torch.allclose(columns, torch.linspace(0, 2, grid[1]))
    rows, _ = places(module, (1, 2), module.scale)
    assert rows.tolist() == [0.0]  # one row: no 0 / 0
    rows, columns = places(module, (2, 3), None)
    assert torch.allclose(rows, torch.arange(2.0)) and torch.allclose(columns, torch.arange(3.0))


@pytest.mark.parametrize(
    ("after", "rule", "first"),
    [([], "product", 18.0), ([1], "power", 9.0), ([1, 2], "product", 4.0),
     ([1, 2, 3], "power", 2.0), ([1, 2, 3], "product", 3.0)],
)  # fmt: skip
def test_a_decoder_begins_at_the_scale_of_its_coarsest_grid(after, rule, first):
    options = {"rotary": {"extent": 36}, "resample_after": after}
    assert decoder((16, 16), coarsest=rule, **options).transformer.scale == first
    assert encoder((16, 16), **options).transformer.scale == 18.0


def test_positions_stay_fp32_under_autocast():
    module = encoder(rotary={"extent": 1024})
    with torch.autocast("cpu", torch.bfloat16):
        (cos, sin), _ = module.transformer._places(3, (8, 12), 512.0, None, torch.zeros(1, 1))
    assert cos.dtype == sin.dtype == torch.float32


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotary": {"channels": [2, 2, 2]}}, "add up to 6; expected 8, the width of a head"),
        ({"rotary": {"channels": [3, 3, 2]}}, "channels"),
        ({"resample_after": [2, 1]}, "expected rising numbers of blocks, each in 1..3"),
        ({"resample_after": [1, 1]}, "expected rising numbers of blocks"),
        ({"resample_after": [4]}, "each in 1..3"),
        ({"taps": {"x": 9}}, "taps.x=9"),
    ],
)
def test_configs_that_do_not_fit(fails, options, words):
    with fails(ValueError, words):
        validate(PyramidEncoderConfig, trunk(**options))


def test_sides_and_kinds_that_do_not_fit(fails):
    with fails(ValueError, r"sides=\(18, 24\) are no multiples of 4 \(patch_size=2, resampled 1"):
        encoder((18, 24), resample_after=[1])
    with fails(ValueError, "takes images, not clips of 4 frames"):
        encoder((4, 16, 16))
    with fails(ValueError, "one list of values, not 2 grids"):
        config = validate(PyramidDecoderConfig, trunk())
        PyramidDecoder(config, Shape(3, (16, 16)), ((3,), (4,)), 5)
    with fails(ValueError, "this decoder cannot leave values out"):
        decoder()(torch.randn(1, 3, 5), torch.ones(1, 3, dtype=torch.bool))


def test_missing_values_equal_a_shorter_list():
    module, values = decoder(missing="drop", resample_after=[1]), torch.randn(2, 3, 5)
    present = torch.tensor([[True, True, False]]).expand(2, -1)
    whole, short = module(values, present).prediction, module(values[:, :2]).prediction
    assert torch.allclose(whole, short, atol=1e-5)
    assert not torch.allclose(whole, module(values).prediction, atol=1e-3)
