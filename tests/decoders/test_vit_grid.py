"""ViT decoder with values on a grid that share the mask tokens' positions, as RobusTok's do."""

import pytest
import torch

import vistok.heads  # noqa: F401  (registers them)
from tests.support.vit_grids import PATCHES, SHAPE, WIDTH, resized, sequence
from vistok.config import ConfigError, validate
from vistok.decoders.vit import ViTDecoder, ViTDecoderConfig

WHOLE = {"value_positions": "shared", "value_class_token": True, "levels": True}


def decoder(grids=((3, 3),), patches=PATCHES, **options) -> ViTDecoder:
    torch.manual_seed(0)
    tree = {
        "patches": patches,
        "transformer": {"width": WIDTH, "depth": 1, "heads": 2},
        **options,
    }
    return ViTDecoder(validate(ViTDecoderConfig, tree), SHAPE, grids, 5)


@pytest.mark.parametrize("grids", [((2, 3),), ((4, 6),), ((2, 2), (3, 3))])
def test_values_and_their_class_token_read_the_table_of_the_mask_tokens(grids):
    part = decoder(grids, **WHOLE)
    count = sum(h * w for h, w in grids)
    assert not hasattr(part, "latent_positions") and part.levels.shape == (2, WIDTH)
    values = torch.randn(2, count, 5)
    y = sequence(part, values)
    table, token, levels = part.positions.table, part.class_token[None], part.levels
    masks = torch.cat([token, part.mask_token.expand(24, -1)]) + table + levels[0]
    rows = torch.cat([resized(table, (4, 6), grid) for grid in grids])
    latents = torch.cat([token + table[:1], part.embed(values[0]) + rows]) + levels[1]
    torch.testing.assert_close(y[0], torch.cat([masks, latents]), atol=1e-5, rtol=0)
    assert part(values).prediction.shape == (2, 3, 16, 24)


def test_each_of_them_is_an_option_of_its_own():
    values = torch.randn(1, 9, 5)
    whole = sequence(decoder(**WHOLE), values)
    assert whole.shape[1] == 1 + 24 + 1 + 9
    assert sequence(decoder(**WHOLE | {"value_class_token": False}), values).shape[1] == 25 + 9
    own = decoder(value_class_token=True)
    y = sequence(own, values)[0]
    assert own.latent_positions.shape == (9, WIDTH) and not hasattr(own, "levels")
    torch.testing.assert_close(y[25], own.class_token)
    torch.testing.assert_close(y[26:], own.embed(values[0]) + own.latent_positions)


@pytest.mark.parametrize("missing", ["drop", "mask_token"])
def test_a_hidden_value_does_not_matter(missing):
    part = decoder(missing=missing, **WHOLE)
    present = torch.arange(9) < torch.tensor([[4], [9]])
    values = torch.randn(2, 9, 5)
    other = torch.where(present[..., None], values, torch.randn(2, 9, 5))
    shown = part(values, present).prediction
    torch.testing.assert_close(part(other, present).prediction, shown)
    assert not torch.allclose(part(values).prediction[0], shown[0], atol=1e-4)
    torch.testing.assert_close(part(values).prediction[1], shown[1], atol=1e-5, rtol=0)


def test_what_does_not_agree_is_one_line(fails):
    bare = {"size": 4, "positions": "none"}
    with fails(ConfigError, "value_positions=shared needs a table: patches.positions is none"):
        decoder(patches=bare, value_positions="shared")
    with fails(ConfigError, "value_class_token=true needs patches.class_token=true"):
        decoder(patches=bare, value_class_token=True)
    with fails(ValueError, r"the grid \(4, 6\) cannot be read on the grid \(9,\)"):
        decoder(grids=((9,),), value_positions="shared")
