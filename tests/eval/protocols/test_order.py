"""What a position carries, on a tokenizer whose tokens each give one patch."""

import base64
import io

import pytest
import torch
from PIL import Image

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from vistok.core.rng import Rng
from vistok.eval.images import exact
from vistok.eval.protocols import order
from vistok.eval.protocols.common import all_codes


@pytest.fixture
def run(measure):
    return lambda context: measure(context, "order")


def test_each_token_changes_its_own_patch(context):
    found = context(PatchTokenizer(8))
    with exact():
        codes = all_codes(found)
        maps, differ = order.changes(found, codes, 24)
    assert maps.shape == (16, 8, 8)
    for position in range(16):
        y, x = 2 * (position // 4), 2 * (position % 4)
        patch = maps[position, y : y + 2, x : x + 2]
        assert patch.min() > 0 and patch.sum() == pytest.approx(float(maps[position].sum()))
    # By hand: the squared distance between the colors of a code and of the one drawn.
    step = 1 + Rng(0, "order").integers(torch.arange(24), 23, (16,))
    other = (torch.arange(24)[:, None] + step) % 24
    colors = found.tokenizer.codes[codes[..., 0]]
    drawn = found.tokenizer.codes[codes[other, torch.arange(16), 0]]
    expected = (colors - drawn).double().square().mean(-1).mean(0) * 4 / 64
    assert torch.allclose(maps.mean((1, 2)), expected)
    assert torch.allclose(
        differ, (codes[other, torch.arange(16), 0] != codes[..., 0]).double().mean(0)
    )


def test_entropies():
    codes = torch.tensor([[0, 1, 0], [0, 2, 0], [0, 3, 1], [0, 4, 0]])[..., None]
    expected = torch.tensor([0.0, 2.0, 0.811278], dtype=torch.float64)
    assert torch.allclose(order.entropies(codes), expected)
    two = torch.tensor([[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]])  # two factors are one code
    assert order.entropies(two).tolist() == [2.0]


def test_facts_rows_and_image_grids(context, run, make_tokenizer):
    found = context(make_tokenizer("fsq"))
    (row,) = run(found)
    facts = found.facts["order"]
    assert len(facts["entropy"]) == len(facts["change"]) == len(facts["differ"]) == 4
    assert facts["images"] == 24 and max(facts["change"]) > 0
    assert row.metric == "order-correlation" and -1 <= row.value <= 1 and row.count == 24
    (grid,) = found.image_grids
    assert grid["kind"] == "order" and grid["run"] == "tiny" and grid["cells"] == 4
    assert [r["label"] for r in grid["rows"]] == ["tokens 1-4, one scale", "tokens 1-4, own scale"]
    assert grid["columns"] == ["1", "2", "3", "4"]


def test_maps_are_visible_and_scaled():
    maps = torch.zeros(18, 128, 64, dtype=torch.float64)
    maps[0, :64], maps[1] = 0.25, 0.0025  # rms 0.5 and 0.05
    grid = order.map_grid("x", maps, 10)
    assert len(grid["rows"]) == 6 and grid["cells"] == 8 and grid["size"] == [66, 34]
    assert "0.500" in grid["note"]
    data = base64.b64decode(grid["rows"][0]["uri"].split(",")[1])
    one = Image.open(io.BytesIO(data)).convert("RGB")
    assert one.size == (8 * 34, 66)
    assert one.getpixel((5, 5)) == (255, 255, 255) and one.getpixel((5, 60)) == (0, 0, 0)
    assert one.getpixel((0, 0)) == (110, 110, 110)
    # log(0.05 * 255) / log(0.5 * 255) = 0.525: orange
    assert one.getpixel((40, 5)) == pytest.approx((228, 101, 26), abs=3)
    own = Image.open(io.BytesIO(base64.b64decode(grid["rows"][1]["uri"].split(",")[1])))
    assert own.convert("RGB").getpixel((40, 5)) == (255, 255, 255)
    assert own.convert("RGB").getpixel((70, 5)) == (0, 0, 0)  # no change: no map


def test_correlation():
    falling = torch.tensor([9.0, 5.0, 2.0, 1.0])
    assert order.rank_correlation(falling) == pytest.approx(-1)
    assert order.rank_correlation(falling.flip(0)) == pytest.approx(1)
    assert order.rank_correlation(torch.ones(4)) != order.rank_correlation(torch.ones(4))  # NaN


def test_batch_size_changes_nothing(context, run):
    one, two = context(PatchTokenizer(8)), context(PatchTokenizer(8), batch=7)
    run(one), run(two)
    assert one.facts["order"]["entropy"] == two.facts["order"]["entropy"]
    assert one.facts["order"]["change"] == pytest.approx(two.facts["order"]["change"], rel=1e-6)


def test_grids_and_continuous_tokens_are_skipped(context, run):
    found = context(PixelTokenizer(8))
    assert run(found) == [] and "one-dimensional" in found.skipped[0]["reason"]
    tokenizer = PatchTokenizer(8)
    spec = PatchTokenizer.spec(tokenizer).model_copy(update={"vocab": ()})
    tokenizer.spec = lambda: spec
    found = context(tokenizer)
    assert run(found) == [] and "continuous" in found.skipped[0]["reason"]
