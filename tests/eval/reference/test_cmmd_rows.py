"""Rows of CMMD: of networks that it is defined on, beside Fréchet distances of the others."""

from __future__ import annotations

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from tests.support.tiny_presets import shrink, write
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, gfid
from vistok.eval.protocols.base import Job
from vistok.eval.reference.sets import SetMeasures
from vistok.eval.reference.training_set import training_set
from vistok.eval.systems.runs import open_data, resolve
from vistok.frozen import feature_network
from vistok.layers.frames import frames
from vistok.metrics.cmmd import REMAINDER, cmmd


@pytest.fixture
def clip(monkeypatch, tmp_path):
    """A tiny network of CMMD."""
    preset = shrink(monkeypatch, "clip-cmmd", native=28, side=28)
    return feature_network("clip-cmmd", write(preset, tmp_path / "a.safetensors"))


def measured(context, clip, tokenizer, metrics=("fid", "kid")):
    made = context(tokenizer)
    plain = made.features
    made.more_features = (clip,)
    seen = []
    with exact():
        measures = SetMeasures(made, len(made.views), metrics)
        for batch in made.views.batches("test"):
            decoded = to_uint8(made.tokenizer.decode(made.tokenizer.encode(batch.pixels)))
            measures.update(decoded, batch.index)
            pair = (decoded, to_uint8(frames(batch.pixels)))
            seen.append([clip(pixels) for pixels in pair])
        rows = measures.rows()
    return plain, rows, [torch.cat(side) for side in zip(*seen, strict=True)]


def test_only_its_network_has_the_row(context, clip):
    plain, rows, _ = measured(context, clip, PixelTokenizer(8))
    named = {(row.metric, row.features.name) for row in rows}
    assert named == {("rFID", plain.name), ("KID", plain.name), ("rCMMD", "clip-cmmd")}
    row = rows[-1]
    assert row.value == pytest.approx(0, abs=1e-12) and row.count == 24
    assert row.display == f"rCMMD[clip-cmmd, {row.reference.name}]"
    assert "Pillow" in row.features.preprocess and "below the sum over all pairs" in row.note


def test_the_number_is_the_exact_one_but_for_its_remainder(context, clip):
    _, rows, (decoded, real) = measured(context, clip, PatchTokenizer(8, patch=8), ("fid",))
    (row,) = [one for one in rows if one.metric == "rCMMD"]
    truth = cmmd(decoded, real)
    assert 0 <= truth - row.value + 1e-6 < REMAINDER and truth > 0.01


def test_generated_images_are_taken_to_training_and_validation_images(runs, features, clip):
    (system,) = resolve(list(runs))
    made = Context(system.tokenizer, Views(open_data(system.tokenizer), 16), features)
    made.more_features = (clip,)
    real = training_set(made.run, {"count": 40}, 30)
    found = {}
    with exact():
        for trained in (True, False):
            one = generated.Pass(length=4, samples=21, trained=trained)
            made.job = Job(gfid.GFID(), one, system.generators[0], real)
            rows = gfid.GFID().run(made, one)
            found |= {row.metric: row for row in rows if row.features.name == "clip-cmmd"}
    assert set(found) == {"gCMMD", "gCMMD-val"}
    assert found["gCMMD"].reference.split == "train" and found["gCMMD"].reference.count == 30
    assert found["gCMMD-val"].reference.split == "val" and found["gCMMD"].count == 21
    assert all(row.run == "gen" and row.value > 0 and row.bias is None for row in found.values())
    assert "30 of 40" in found["gCMMD"].note and "tokens of tok" in found["gCMMD-val"].note
