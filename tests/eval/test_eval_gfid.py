"""gFID: even classes, keyed samples, baseline, prefixes."""

import pytest
import torch

from eval.bench import Bench
from eval.images import Views, exact
from eval.protocols import gfid
from eval.runs import open_data, resolve


@pytest.fixture
def pair(runs, features):
    (pair,) = resolve(list(runs))

    def make(batch=16):
        return Bench(pair.tokenizer, Views(open_data(pair.tokenizer), batch), features)

    return make, pair.generators[0]


def test_rows(pair):
    make, generator = pair
    with exact():
        rows = gfid.run(make(), generator, (1.0, 2.0), samples=21)
    found = [(r.metric, r.length, r.decode.guidance, r.samples) for r in rows]
    assert found == [
        ("gFID", 4, 1.0, 21),
        ("gFID", 4, 2.0, 21),
        ("gFID", 1, 1.0, 21),
        ("gFID", 2, 1.0, 21),
        ("gFID-untrained", 4, 1.0, 21),
    ]
    assert all(r.run == "gen" and r.condition == "class" for r in rows)
    assert "not training statistics" in rows[0].note and "seed 0" in rows[-1].note
    assert rows[0].display == "gFID[vistok-cnn, photos]" and rows[0].reference.split == "val"


def test_batches_change_nothing_and_classes_are_even(pair):
    make, generator = pair
    with exact():
        one, two = [
            gfid.sample_stats(make(batch), generator.generator, 4, 1.0, 21, "") for batch in (21, 4)
        ]
    assert one.count == two.count == 21
    assert one.mean == pytest.approx(two.mean, abs=1e-5)
    labels = gfid.labels_of(generator.generator, torch.arange(21))
    assert labels.bincount().tolist() == [3] * 7


def test_pictures_are_those_of_the_statistics(pair):
    make, generator = pair
    with exact():
        bench = make()
        shown = gfid.pictures(bench, generator.generator, [0, 3, 6], 2, 1.0)
        tokens = gfid.sample(bench, generator.generator, torch.arange(14), 4, 1.0)
        painted = (bench.tokenizer.decode(tokens) * 255 + 0.5).byte()
    assert shown.shape == (3, 2, 3, 8, 8)
    assert torch.equal(shown[1, 1], painted[10])  # class 3, second sample: number 3 + 7
