"""CKNNA of a tokenizer: its taps, its image count, and the same numbers for any batch."""

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer
from vistok.config import validate
from vistok.eval.images import exact
from vistok.eval.protocols import alignment
from vistok.metrics.alignment import cknna
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_rows_and_taps(context, measure):
    found = context(PatchTokenizer(8), count=30)
    rows = measure(found, "alignment", neighbors=5)
    assert [row.point.get("tap") for row in rows] == [
        *(None, "latents/mean", "latents/flat", "codes/mean", "codes/flat"),
    ]
    by_tap = {row.point.get("tap"): row for row in rows}
    assert by_tap[None].value == by_tap["codes/mean"].value
    with exact():
        pixels = torch.stack([found.views.pick([i])[0] for i in range(30)])
        seen = found.features((pixels * 255).round().to(torch.uint8))
        flat = torch.nn.functional.avg_pool2d(pixels, 2).flatten(2).transpose(1, 2).flatten(1)
    assert by_tap["latents/flat"].value == pytest.approx(cknna(flat, seen, 5), rel=1e-6)
    assert "k=5; codes/flat: 48 numbers" in by_tap["codes/flat"].note
    row = rows[0]
    assert (row.metric, row.count, row.few) == ("CKNNA", 30, "30 images")
    assert row.features.name == "vistok-cnn"
    assert row.setting == {"images": 10_000, "neighbors": 5}


def test_batch_size_and_number_of_images(context, measure):
    one, two = (
        measure(context(PatchTokenizer(8), count=40, batch=size), "alignment", images=20)
        for size in (40, 7)
    )
    assert [row.value for row in one] == pytest.approx([row.value for row in two], rel=1e-6)
    assert {row.count for row in one} == {20}
    found = context(PatchTokenizer(8), count=40)
    found.views.limit = 20
    (first, *_) = measure(found, "alignment", images=16)
    assert first.count == 16


def test_continuous_tokens_have_no_latents_of_their_own(context, measure, tree):
    torch.manual_seed(1)
    config = tree() | {"quantizer": {"kind": "kl", "dim": 3}}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    rows = measure(context(tokenizer), "alignment")
    assert [row.point.get("tap") for row in rows] == [None, "codes/mean", "codes/flat"]


def test_what_does_not_apply(context, measure, monkeypatch):
    found = context(PatchTokenizer(8), count=6)
    assert measure(found, "alignment") == []
    assert "6 images; 10 neighbors need 12" in found.skipped[-1]["reason"]
    monkeypatch.setattr(alignment, "WIDEST", 40)
    found = context(PatchTokenizer(8), count=20)
    rows = measure(found, "alignment", neighbors=3)
    assert {row.point.get("tap") for row in rows} == {None, "latents/mean", "codes/mean"}
    assert "48 numbers" in found.skipped[-1]["reason"]
    with exact():
        kept, _ = alignment.collect(found, found.views)
    assert set(kept) == {"latents/mean", "codes/mean"}  # nothing of the others is ever held
