import json
import pickle
import random

import numpy as np
import pytest
import torch

from vistok.core.records import Batch
from vistok.data import BadSample, DataError, EvalLoader, Order, TrainLoader, to_device


def equal(one, two) -> bool:
    pairs = [(getattr(one, f), getattr(two, f)) for f in ("index", "pixels", "label", "flip")]
    return all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)


def test_batches_follow_the_order(numbers):
    order = Order(10, 4, seed=5)
    for step, batch in enumerate(TrainLoader(numbers(10), order, steps=6)):
        rows = order.indices(step)
        assert batch.index.tolist() == [i for _, i in rows] and batch.index.dtype == torch.int64
        assert batch.pixels[:, 0, 0].tolist() == [[e, i] for e, i in rows]
        assert batch.pixels.dtype == torch.uint8 and batch.label.dtype == torch.int64
    assert step == 5


@pytest.mark.parametrize("start", [0, 3])
def test_workers_change_nothing(numbers, start):
    data, order = numbers(11, broken=(4,), flip=True), Order(11, 4, seed=5)
    runs = [
        list(TrainLoader(data, order, steps=9, start_step=start, workers=w, max_bad_share=1.0))
        for w in (0, 2)
    ]
    assert len(runs[0]) == 9 - start
    assert all(equal(a, b) for a, b in zip(*runs, strict=True))


def test_resume_is_skipping(numbers):
    data, order = numbers(11, flip=True), Order(11, 4, seed=5)
    whole = list(TrainLoader(data, order, steps=9))
    rest = list(TrainLoader(data, Order(11, 4, seed=5), steps=9, start_step=6))
    assert len(rest) == 3 and all(equal(a, b) for a, b in zip(whole[6:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_join_to_the_same_batch(numbers, world):
    data, order = numbers(11, broken=(4,), flip=True), Order(11, 8, seed=5)
    keep = {"max_bad_share": 1.0}
    whole = list(TrainLoader(data, order, steps=5, **keep))
    parts = [
        list(TrainLoader(data, order, steps=5, rank=r, world=world, **keep)) for r in range(world)
    ]
    for step, batch in enumerate(whole):
        for field in ("index", "pixels", "label", "flip"):
            joined = torch.cat([getattr(part[step], field) for part in parts])
            assert torch.equal(joined, getattr(batch, field))


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_untouched(numbers, workers):
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    list(TrainLoader(numbers(8), Order(8, 4, 0), steps=3, workers=workers))
    list(EvalLoader(numbers(8), 4, workers=workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), pickle.dumps(np.random.get_state()))


def test_mirroring_is_keyed_and_done_on_the_device(numbers):
    order = Order(64, 64, seed=2)
    first, second = TrainLoader(numbers(64, flip=True), order, steps=2)
    assert 15 < first.flip.sum() < 49
    by_index = [dict(zip(b.index.tolist(), b.flip.tolist(), strict=True)) for b in (first, second)]
    assert by_index[0] != by_index[1]  # another epoch, other draws
    again = next(iter(TrainLoader(numbers(64, flip=True), Order(64, 16, seed=2), steps=1)))
    for index, flip in zip(again.index.tolist(), again.flip.tolist(), strict=True):
        assert by_index[0][index] == flip  # whatever the batch size
    moved = to_device(first, "cpu")
    assert type(moved) is Batch and moved.pixels.dtype == torch.float32
    expected = first.pixels.float() / 255
    expected[first.flip] = expected[first.flip].flip(-1)
    assert torch.equal(moved.pixels, expected) and moved.pixels.max() <= 1
    assert torch.equal(to_device(moved, "cpu").pixels, moved.pixels)  # twice is once


def test_without_flip_nothing_is_mirrored(numbers):
    batch = next(iter(TrainLoader(numbers(8), Order(8, 4, 0), steps=1)))
    assert batch.flip is None
    assert torch.equal(to_device(batch, "cpu").pixels, batch.pixels.float() / 255)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_rows_are_filled_noted_and_counted(numbers, tmp_path, caplog, workers):
    data, order = numbers(20, broken=(3, 8)), Order(20, 5, seed=1)
    loader = TrainLoader(data, order, steps=8, workers=workers, folder=tmp_path, max_bad_share=0.5)
    with caplog.at_level("WARNING"):
        rows = [i for batch in loader for i in batch.index.tolist()]
    expected = []
    for position in range(40):
        while order.at(position)[1] in (3, 8):
            position += 1
        expected.append(order.at(position)[1])
    assert rows == expected
    lines = [json.loads(x) for x in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert {line["name"]: line["reason"] for line in lines} == {
        "number 3": "made broken", "number 8": "made broken",
    }  # fmt: skip
    assert len(lines) == len(caplog.records) == 2  # two epochs, one line a file
    assert "the next good sample" in caplog.text
    assert (loader._quarantine.bad, loader._quarantine.seen) == (4, 40)
    list(TrainLoader(data, order, steps=8, folder=tmp_path, max_bad_share=0.5))  # a resumed run
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2


def test_too_many_broken_samples_stop(numbers, tmp_path):
    data = numbers(2000, broken=tuple(range(0, 2000, 20)))  # 5 %
    with pytest.raises(DataError, match=r"max_bad_share=0\.01") as caught:
        list(TrainLoader(data, Order(2000, 50, 0), steps=40, folder=tmp_path))
    text = str(caught.value)
    assert 10 < int(text.split()[0]) < 20
    assert str(tmp_path / "quarantine.jsonl") in text and "\n" not in text
    list(TrainLoader(data, Order(2000, 50, 0), steps=40, max_bad_share=0.06))
    with pytest.raises(DataError, match=r"max_bad_share=0\.0;"):
        list(TrainLoader(data, Order(2000, 50, 0), steps=40, max_bad_share=0.0))
    few = numbers(2000, broken=tuple(range(0, 2000, 200)))  # 0.5 % is tolerated
    assert len(list(TrainLoader(few, Order(2000, 50, 0), steps=40))) == 40


def test_nothing_but_broken_samples_ends(numbers):
    with pytest.raises(DataError, match="64 samples in a row cannot be used"):
        list(
            TrainLoader(
                numbers(6, broken=tuple(range(6))), Order(6, 2, 0), steps=5, max_bad_share=1.0
            )
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_sees_each_sample_once(numbers, workers, world):
    loaders = [
        EvalLoader(numbers(23), 4, workers=workers, rank=r, world=world) for r in range(world)
    ]
    rows = [index for loader in loaders for batch in loader for index in batch.index.tolist()]
    assert sorted(rows) == list(range(23)) and sum(map(len, loaders)) == 6
    limited = [b.index.tolist() for b in EvalLoader(numbers(23), 4, limit=6)]
    assert limited == [[0, 1, 2, 3], [4, 5]]
    rest = [b.index.tolist() for b in EvalLoader(numbers(23), 4, limit=9, start=6)]
    assert rest == [[6, 7, 8]]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_refuses_broken_samples(numbers, workers):
    with pytest.raises(BadSample, match="number 5: made broken") as caught:
        list(EvalLoader(numbers(8, broken=(5,)), 4, workers=workers))
    assert "\n" not in str(caught.value)


def test_wait_and_mismatches(numbers):
    loader = TrainLoader(numbers(8), Order(8, 4, 0), steps=3)
    assert len(loader) == 3 and len(list(loader)) == 3 and 0 < loader.wait < 5
    with pytest.raises(DataError, match="order of 9 samples for a data set of 8"):
        TrainLoader(numbers(8), Order(9, 4, 0), steps=3)
    with pytest.raises(ValueError, match="does not split over 3"):
        TrainLoader(numbers(8), Order(8, 4, 0), steps=3, world=3)
