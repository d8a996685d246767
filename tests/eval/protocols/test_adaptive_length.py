"""Adaptive against fixed length: equal bytes, the definition of the search, the chart."""

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from vistok.adaptive import psnr_of_each
from vistok.data.batch import to_uint8
from vistok.eval.protocols.adaptive_length import places_for, tables
from vistok.eval.report.curves import rate_charts
from vistok.eval.results.metrics import METRICS
from vistok.eval.results.rows import Results
from vistok.tokens.codec import Codec

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


def test_places_by_hand():
    psnr = torch.tensor([[10.0, 20, 30], [20, 25, 30], [5, 6, 7]], dtype=torch.float64)
    sizes = torch.tensor([[1, 2, 4]] * 3)
    # 10 dB: places 0, 0, 2 (never reached: whole); 20: 1, 0, 2; 25: 2, 1, 2; 30: all whole
    for room, asked, places in (
        (1.0, 5, [0, 0, 0]),
        (2.0, 10, [0, 0, 2]),
        (2.4, 20, [1, 0, 2]),
        (3.4, 25, [2, 1, 2]),
        (4.0, 30, [2, 2, 2]),
    ):
        found, where = places_for(psnr, sizes, room)
        assert where.tolist() == places and found == asked


def test_rows_at_equal_bytes(context, measure):
    found = context(PatchTokenizer(8), batch=7)  # 16 tokens of 9 bits
    rows = measure(found, "adaptive_length")
    by = {}
    for row in rows:
        by.setdefault((row.metric, row.point.get("codec")), []).append(row)
    fixed, adaptive = by["PSNR", "fixed"], by["PSNR", "adaptive"]
    assert [row.length for row in fixed] == [1, 2, 4, 8, 16] and len(adaptive) == 3
    tokenizer, pixels = found.tokenizer, found.views.pick(range(24))
    tokens, codec = tokenizer.encode(pixels), Codec(tokenizer.spec(), "0" * 8)
    for row in fixed:
        files = codec.write(tokens.prefix(row.length))
        assert row.measured["bytes"] == sum(map(len, files)) / 24
    for row, plain in zip(adaptive, fixed[1:-1], strict=True):
        assert row.measured["bytes"] <= plain.measured["bytes"] and row.length is None
        asked, lengths = row.measured["target_psnr"], []
        for image in range(24):  # the definition, image by image
            for length in (1, 2, 4, 8, 16):
                one = tokens.select([image]).prefix(length)
                decoded = to_uint8(tokenizer.decode(one))
                if float(psnr_of_each(decoded, to_uint8(pixels[[image]]))) >= asked - 1e-9:
                    break
            lengths.append(length)
        files = codec.write(tokens.prefix(lengths))
        assert row.measured["bytes"] == sum(map(len, files)) / 24
        assert f"{min(lengths)}..{max(lengths)}" in row.note
    (gain,) = by["adaptive-gain", None]
    pairs = zip(adaptive, fixed[1:-1], strict=True)
    assert gain.value == pytest.approx(sum(a.value - b.value for a, b in pairs) / 3)
    assert METRICS["adaptive-gain"].table == "whole"


def test_the_chart_has_both_lines(context, measure):
    rows = measure(context(PatchTokenizer(8)), "adaptive_length")
    charts = rate_charts(Results(rows=tuple(rows), runs=({"name": "tiny"},)))
    assert len(charts) == 3  # PSNR, perceptual, rFID
    for chart in charts:
        assert (
            "tiny, adaptive" in chart and "tiny, fixed" not in chart and "bytes per image" in chart
        )
        assert chart.count("<path") >= 2 and "≠" not in chart


def test_all_lengths_are_at_least_as_good_a_choice(context, measure):
    found = context(PatchTokenizer(8))
    psnr, sizes = tables(found, list(range(1, 17)))
    assert psnr.shape == sizes.shape == (24, 16) and (sizes.diff(dim=1) >= 0).all()
    few, room = [0, 1, 3, 7, 15], float(sizes[:, 3].double().mean())
    asked = [places_for(psnr[:, c], sizes[:, c], room)[0] for c in (few, list(range(16)))]
    assert asked[0] <= asked[1]


def test_what_does_not_apply(context, measure):
    found = context(PixelTokenizer(8))
    assert measure(found, "adaptive_length") == []
    assert "three lengths" in found.skipped[0]["reason"]
