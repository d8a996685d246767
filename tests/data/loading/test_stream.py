"""Lanes and the loader over them, on a stream of numbers: exact, whoever reads."""

import json
import pickle
from collections import Counter

import pytest
import torch

from vistok.config import ConfigError
from vistok.data import BadSample, DataError, Sample, Stream, StreamLoader
from vistok.data.loading.stream import Entry, Lane


class Shelf(Stream):
    """Shard s holds `sizes[s]` samples; those in `broken` (shard, offset) cannot be used."""

    classes, size, flip = ("one",), (2, 2), True

    def __init__(self, sizes, shuffle=4, broken=(), undecodable=()):
        self.sizes, self.shards, self.shuffle = sizes, len(sizes), shuffle
        self.broken, self.undecodable = frozenset(broken), frozenset(undecodable)
        self.count, self.reads = sum(sizes), []

    def read(self, shard, offset=0):
        for place in range(offset, self.sizes[shard]):
            self.reads.append((shard, place))
            bad = (shard, place) in self.broken
            content = BadSample(f"{shard}/{place}", "made broken") if bad else (shard, place)
            yield Entry(place, place + 1, content)

    def decode(self, content, index, epoch, seed):
        if content in self.undecodable:
            raise BadSample(f"{content[0]}/{content[1]}", "made undecodable")
        pixels = torch.full((3, 2, 2), epoch, dtype=torch.uint8)
        return Sample(index, pixels, 0, str(content))

    def name(self, shard):
        return f"shard {shard}"

    def record(self):
        return {"kind": "shelf", "count": self.count}


SIZES = (7, 3, 12, 5, 8, 1, 9, 6)
BROKEN = {"broken": [(2, 4)], "undecodable": [(0, 1), (4, 7)]}
ALL = {(s, o) for s, size in enumerate(SIZES) for o in range(size)}
GOOD = ALL - {(2, 4), (0, 1), (4, 7)}


def place(index):
    return index >> 40, index & (2**40 - 1)


def batches(stream, steps=20, batch=8, **options):
    """[(index, epoch of each row, flip, label)] and the positions after each."""
    loader = StreamLoader(stream, batch, 3, steps=steps, max_bad_share=1.0, **options)
    rows, positions = [], []
    for b in loader:
        rows.append([t.tolist() for t in (b.index, b.pixels[:, 0, 0, 0], b.flip, b.label)])
        positions.append(json.loads(json.dumps(loader.positions)))
    return rows, positions


def joined(parts):
    return [
        [[row for part in step for row in part[field]] for field in range(4)]
        for step in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("shuffle", [0, 4, 100])
@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_each_epoch_has_every_good_sample_once(lanes, shuffle):
    stream = Shelf(SIZES, shuffle, **BROKEN)
    seen = Counter()
    for lane in range(lanes):
        reader = Lane(stream, lane, lanes, seed=1)
        while (found := reader.next()).epoch < 3:
            seen[found.epoch, place(found.sample.index)] += 1
    assert seen == Counter({(epoch, spot): 1 for epoch in range(3) for spot in GOOD})


def test_epochs_and_seeds_differ_and_shuffling_mixes():
    def order(seed, shuffle=100):
        lane = Lane(Shelf(SIZES, shuffle), 0, 1, seed)
        return [lane.next().sample.index for _ in range(2 * len(ALL))]

    first, second = order(0)[: len(ALL)], order(0)[len(ALL) :]
    assert set(first) == set(second) and first != second
    assert order(0) == order(0) != order(1)
    plain = [place(i) for i in order(0, shuffle=0)[: len(ALL)]]
    for shard, size in enumerate(SIZES):
        assert [o for s, o in plain if s == shard] == list(range(size))


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("shuffle", [1, 4, 100])
def test_a_lane_goes_on_from_any_place(lanes, shuffle):
    stream = Shelf(SIZES, shuffle, **BROKEN)
    lane = Lane(stream, lanes - 1, lanes, seed=1)
    places, found = [lane.position], []
    for _ in range(3 * len(ALL) // lanes):
        found.append(lane.next())
        places.append(json.loads(json.dumps(lane.position)))
    for start in range(0, len(found) - 8, 3):
        again = Lane(stream, lanes - 1, lanes, 1, places[start])
        for want in found[start : start + 8]:
            got = again.next()
            assert (got.sample.index, got.epoch, got.bad) == (
                want.sample.index,
                want.epoch,
                want.bad,
            )


def test_going_on_reads_one_block_not_the_epoch():
    stream = Shelf((1000, 1000), shuffle=16)
    lane = Lane(stream, 0, 1, seed=0)
    for _ in range(1900):
        lane.next()
    stream.reads.clear()
    assert Lane(stream, 0, 1, 0, lane.position).next()
    assert len(stream.reads) <= 16 and min(place for _, place in stream.reads) > 850


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("world", "workers"), [(1, 0), (1, 2), (1, 4), (2, 0), (2, 1), (2, 2), (4, 0)]
)
def test_batches_do_not_depend_on_processes_and_workers(world, workers):
    whole, after = batches(Shelf(SIZES, **BROKEN), lanes=4)
    parts = [
        batches(Shelf(SIZES, **BROKEN), lanes=4, rank=r, world=world, workers=workers)
        for r in range(world)
    ]
    assert joined([rows for rows, _ in parts]) == whole
    for step, positions in enumerate(after):
        assert {k: v for _, p in parts for k, v in p[step].items()} == positions
    epochs = {e for rows in whole for e in rows[1]}
    assert {0, 1, 2} <= epochs


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 5, 6, 11])
def test_the_next_eight_batches_after_a_resume(start, workers):
    options = {"lanes": 2, "workers": workers}
    whole, positions = batches(Shelf(SIZES, **BROKEN), **options)
    going = {"start_step": start, "positions": positions[start - 1], "steps": start + 8}
    rest, _ = batches(Shelf(SIZES, **BROKEN), **going, **options)
    assert rest == whole[start : start + 8]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("before", "after"), [((1, 4), (2, 0)), ((2, 2), (1, 0)), ((4, 0), (2, 1))]
)
def test_a_resume_may_change_processes_and_workers(before, after):
    whole, _ = batches(Shelf(SIZES, **BROKEN), lanes=4)
    first = [
        batches(Shelf(SIZES, **BROKEN), 7, lanes=4, rank=r, world=before[0], workers=before[1])
        for r in range(before[0])
    ]
    positions = {k: v for _, p in first for k, v in p[-1].items()}
    going = {"start_step": 7, "positions": positions, "lanes": 4}
    rest = [
        batches(Shelf(SIZES, **BROKEN), **going, rank=r, world=after[0], workers=after[1])[0]
        for r in range(after[0])
    ]
    assert joined([rows for rows, _ in first]) + joined(rest) == whole


def test_lanes_are_counted_from_the_readers():
    assert StreamLoader(Shelf(SIZES), 8, 0, steps=1, world=2, workers=2).lanes == 4
    assert StreamLoader(Shelf(SIZES), 8, 0, steps=1, world=2).lanes == 2
    stream = Shelf(SIZES)
    stream.lanes = 8
    assert StreamLoader(stream, 8, 0, steps=1, world=2).lanes == 8


def test_numbers_that_do_not_fit_are_one_line(fails):
    stream = Shelf(SIZES)
    with fails(ConfigError, "9 lanes for 8 shards", "at most 8"):
        StreamLoader(stream, 9, 0, steps=1, lanes=9)
    with fails(ConfigError, "4 lanes do not split over 1 .* x 3 workers", "workers=1 or 2 or 4"):
        StreamLoader(stream, 8, 0, steps=1, lanes=4, workers=3)
    with fails(ConfigError, "number of processes that divides 4"):
        StreamLoader(stream, 8, 0, steps=1, lanes=4, world=3)
    with fails(ConfigError, "10 rows do not split over 4 lanes", "use 8 or 12"):
        StreamLoader(stream, 10, 0, steps=1, lanes=4)
    with fails(DataError, "resumes at step 5 from positions"):
        StreamLoader(stream, 8, 0, steps=9, start_step=5)
    with fails(DataError, "no position of lane 1 of 2"):
        StreamLoader(stream, 8, 0, steps=9, start_step=1, lanes=2, positions={"0": {}})
    with fails(DataError, "the shards changed"):
        Lane(stream, 0, 1, 0, {"visit": 0, "offset": 0, "taken": 5})


@pytest.mark.parametrize("workers", [0, 2])
def test_every_broken_sample_is_counted_and_named_once(tmp_path, workers):
    options = {"steps": 20, "folder": tmp_path, "workers": workers, "max_bad_share": 1.0}
    list(StreamLoader(Shelf(SIZES, **BROKEN), 8, 3, lanes=2, **options))
    noted = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(n["name"] for n in noted) == ["0/1", "2/4", "4/7"]
    with pytest.raises(DataError, match=r"more than max_bad_share=0\.0"):
        list(StreamLoader(Shelf(SIZES, **BROKEN), 8, 3, steps=20, lanes=2, max_bad_share=0.0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Shelf((0, 0, 0)), "no sample in any of the 3 shards"),
        (Shelf((2, 0), undecodable=[(0, 0), (0, 1)]), "1000 samples in a row cannot be used.*0/"),
    ],
)
def test_a_stream_without_samples_ends(fails, stream, message, workers, caplog):
    loader = StreamLoader(stream, 4, 0, steps=2, workers=workers, max_bad_share=1.0)
    with fails(DataError, message):
        list(loader)
    assert {f"shard shard {s} has no samples" for s, n in enumerate(stream.sizes) if not n} == set(
        caplog.messages
    )


def test_empty_shards_among_others_are_passed(caplog):
    rows, _ = batches(Shelf((0, 3, 0, 2)), steps=5, batch=4)
    assert {place(i)[0] for row in rows for i in row[0]} == {1, 3}
    assert caplog.messages.count("shard shard 0 has no samples") == 1


def test_the_global_generators_are_untouched():
    before = torch.get_rng_state()
    batches(Shelf(SIZES), workers=2, lanes=2)
    assert torch.equal(before, torch.get_rng_state())
    loader = StreamLoader(Shelf(SIZES), 4, 0, steps=3)
    assert len(loader) == 3 == len(list(loader)) and 0 < loader.wait < 5
    assert pickle.loads(pickle.dumps(Shelf(SIZES))).count == sum(SIZES)
