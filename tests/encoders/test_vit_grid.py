"""ViT encoder with latents on grids: their positions, levels, branches, and what is refused."""

import pytest
import torch

import vistok.encoders  # noqa: F401  (registers them)
from tests.support.vit_grids import PATCHES, SHAPE, WIDTH, resized, sequence
from vistok.config import ConfigError, validate
from vistok.core.shapes import Shape
from vistok.encoders.vit import LatentsConfig, ViTEncoder, ViTEncoderConfig


def encoder(shape=SHAPE, patches=PATCHES, **latents) -> ViTEncoder:
    torch.manual_seed(0)
    tree = {
        "patches": patches,
        "latents": latents,
        "transformer": {"width": WIDTH, "depth": 1, "heads": 2},
    }
    return ViTEncoder(validate(ViTEncoderConfig, tree), shape, 5)


@pytest.mark.parametrize("grid", [(2, 3), (4, 6), (5, 7)])
def test_branches_read_the_table_of_the_patches_and_levels_tell_them_apart(grid):
    part = encoder(grid=grid, branches=2, positions="shared", levels=True)
    each = grid[0] * grid[1]
    assert part.grids == (grid, grid) and part.latent_tokens.shape == (2 * each, WIDTH)
    assert not hasattr(part, "latent_positions") and part.levels.shape == (3, WIDTH)
    x = torch.rand(2, *(3, 16, 24))
    y = sequence(part, x)
    table, tokens, levels = part.positions.table, part.latent_tokens, part.levels
    patches = torch.cat([part.class_token[None], part.patch_embed(x)[0]]) + table + levels[0]
    rows = resized(table, (4, 6), grid)
    first, second = tokens[:each] + rows + levels[1], tokens[each:] + rows + levels[2]
    torch.testing.assert_close(y[0], torch.cat([patches, first, second]), atol=1e-5, rtol=0)
    assert part(x).values.shape == (2, 2 * each, 5) and part(x).grids == (grid, grid)


def test_an_equal_grid_reads_the_very_rows():
    part = encoder(grid=(4, 6), positions="shared")
    with torch.no_grad():
        part.latent_tokens.zero_()
    y = sequence(part, torch.rand(1, 3, 16, 24))
    assert torch.equal(y[0, 25:], part.positions.table[1:])


def test_a_grid_with_a_table_of_its_own():
    part = encoder(grid=(2, 2), branches=3, positions=True)
    assert part.latent_positions.shape == (12, WIDTH) and part.shared is None
    y = sequence(part, torch.rand(1, 3, 16, 24))
    torch.testing.assert_close(y[0, 25:], part.latent_tokens + part.latent_positions)


def test_clips_share_a_table_on_an_equal_grid_only(fails):
    clip, patches = Shape(3, (2, 8, 8)), {"size": 4, "positions": "learned"}
    part = encoder(clip, patches, grid=(2, 2, 2), positions="shared")
    assert part(torch.rand(1, 3, 2, 8, 8)).grids == ((2, 2, 2),)
    with fails(ValueError, r"the grid \(2, 2, 2\) cannot be read on the grid \(2, 2\)"):
        encoder(clip, patches, grid=(2, 2), positions="shared")


def test_the_number_of_latents_follows_from_the_grid():
    assert validate(LatentsConfig, {"grid": [3, 4], "branches": 2}).count == 24
    dumped = validate(LatentsConfig, {"grid": [3, 4]}).model_dump(mode="json")
    assert validate(LatentsConfig, dumped).count == dumped["count"] == 12


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ({"grid": [3, 3], "count": 8}, "count=8, but 1 branches on the grid .* have 9 latents"),
        ({"branches": 2}, "branches=2 needs the grid"),
        ({"positions": "shared"}, "positions=shared needs the grid"),
        ({"count": None, "levels": True}, "levels=true needs latent tokens"),
        ({"grid": [2, "x"]}, "grid.1: got 'x'"),
        ({"grid": [0, 2]}, "grid.0"),
        ({"grid": [2, 2], "branches": "many"}, "branches: got 'many'"),
    ],
)
def test_what_does_not_agree_is_one_line(latents, message, fails):
    with fails(ConfigError, message):
        validate(LatentsConfig, latents)


def test_shared_positions_need_a_table(fails):
    with fails(ConfigError, "positions=shared needs a table: patches.positions is none"):
        encoder(patches={"size": 4, "positions": "none"}, grid=(2, 2), positions="shared")


def test_small_tokens_start_near_zero():
    tree = {
        "patches": PATCHES,
        "latents": {"grid": [2, 2], "positions": "shared", "levels": True},
        "token_std": "small",
        "transformer": {"width": 64, "depth": 1, "heads": 2},
    }
    part = ViTEncoder(validate(ViTEncoderConfig, tree), SHAPE, 5)
    assert part.latent_tokens.abs().max() < 1e-5 and part.class_token.abs().max() < 1e-5
    assert part.positions.table.std().item() == pytest.approx(0.02, rel=0.1)
    assert part.levels.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.2)
