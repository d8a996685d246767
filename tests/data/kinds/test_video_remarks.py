"""Videos of which a part cannot be used, or that are odd: clips of the rest, one remark each."""

import json
import logging

import numpy as np
import pytest

from tests.support.films import open_video
from tests.support.numbered import SIZE, muxed, numbers_of, packets, plain, written
from vistok.data import BadSample, EvalLoader, Order, TrainLoader
from vistok.data.decode.video.probe import Probe
from vistok.data.kinds import video


def numbered(folder, **values):
    """Data set of files of numbered pictures, read at their own size."""
    return open_video(path=str(folder), **{"size": SIZE, "decoder": "pyav", **values})


def clip_numbers(sample) -> list[int]:
    return numbers_of(sample.pixels.permute(1, 2, 3, 0).numpy())


def drawn(data, draws: int = 40) -> list[list[int]]:
    return [clip_numbers(data.sample(0, epoch, seed=2)) for epoch in range(draws)]


@pytest.fixture
def late(tmp_path):
    """A folder with one recording that begins inside a group of pictures: frames 11 to 39."""
    made, stream = packets(range(40))
    (tmp_path / "films").mkdir()
    muxed(tmp_path / "films" / "late.ts", plain(made[5:]), stream)
    return tmp_path / "films"


def test_training_says_once_what_of_a_file_is_not_used(late, tmp_path, caplog):
    data = numbered(late)
    clips = drawn(data, 150)
    assert all(clip == list(range(clip[0], clip[0] + 4)) for clip in clips)
    assert {clip[0] for clip in clips} >= {11, 36}
    note = "the first 6 of 35 frames cannot be decoded: the file begins inside a group of pictures"
    assert data.sample(0).note == note
    caplog.clear()
    for steps in (3, 6):  # a run, and its continuation
        options = {"steps": steps, "start_step": steps - 3, "folder": tmp_path}
        list(TrainLoader(data, Order(1, 2, seed=0), **options))
    (line,) = (tmp_path / "remarks.jsonl").read_text().splitlines()
    assert json.loads(line) == {"name": "late.ts", "note": note}
    assert caplog.messages == [f"odd sample late.ts: {note}"]
    assert not (tmp_path / "quarantine.jsonl").exists()  # it counts as good
    caplog.clear()
    list(EvalLoader(data, 1, workers=0))
    assert caplog.messages == [f"odd sample late.ts: {note}"]


def test_workers_send_remarks(late, tmp_path):
    list(TrainLoader(numbered(late), Order(1, 2, seed=0), steps=2, workers=1, folder=tmp_path))
    assert "late.ts" in (tmp_path / "remarks.jsonl").read_text()


def test_good_files_have_no_remark(tmp_path, caplog):
    written(tmp_path / "x.mp4")
    with caplog.at_level(logging.WARNING):
        list(TrainLoader(numbered(tmp_path), Order(1, 2, seed=0), steps=2, folder=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_clips_do_not_span_a_clock_that_restarts(tmp_path, fails):
    (tmp_path / "films").mkdir()
    one, two = (written(tmp_path / f"{n}.ts", range(n, n + 20)) for n in (0, 30))
    (tmp_path / "films" / "x.ts").write_bytes(one.read_bytes() + two.read_bytes())
    folder = tmp_path / "films"
    for shape in ({}, {"stride": 5}, {"fps": 25.0}):
        clips = drawn(numbered(folder, **shape), 60)
        step = shape.get("stride", 1)
        assert all((np.diff(clip) == step).all() for clip in clips)
        assert {clip[0] >= 30 for clip in clips} == {True, False}
    assert clip_numbers(numbered(folder, frames=20, start="first")[0]) == list(range(20))
    assert numbered(folder)[0].note == "its clock restarts at frame 20; no clip spans that"
    with fails(BadSample, r"x\.ts: 20 frames in a row at 25 fps found, 21 at stride 1 wanted"):
        numbered(folder, frames=21)[0]
    padded = clip_numbers(numbered(folder, frames=22, pad_frames="repeat")[0])
    assert padded == [*range(20), 19, 19]


def test_clips_span_a_change_of_size_and_say_so(tmp_path):
    small, stream = packets(range(20))
    large, _ = packets(range(20, 40), size=(96, 128))
    (tmp_path / "films").mkdir()
    muxed(tmp_path / "films" / "x.ts", plain(small) + plain(large, 20), stream)
    whole = numbered(tmp_path / "films", frames=40)[0]
    assert clip_numbers(whole) == list(range(40))  # all at one size
    assert whole.note == "its frames change their size (64x48, 128x96)"
    assert numbered(tmp_path / "films", start="first")[0].note == ""  # nothing of it is seen


def test_damage_is_said(broken, tmp_path):
    (tmp_path / "x.mp4").symlink_to(broken / "truncated_midstream.mp4")
    data = open_video(path=str(tmp_path), frames=22, start="middle")
    assert data[0].note.startswith("frame 22 cannot be decoded (")


def test_beginnings_of_all_parts_are_drawn_alike():
    index = Probe(
        *(np.arange(30), np.ones(30), np.array([0]), 1, 1.0, (2, 2), True, 0),
        usable=((0, 10), (10, 12), (12, 30)),
    )
    begins = []
    for place in np.arange(0, 1, 0.0025):
        (start, stop), within = video.part_of(index, 4, 2, None, place)
        begins.append(
            start + video.take(index.cut(start, stop), stop - start, 4, 2, None, within)[0]
        )
    found, counts = np.unique(begins, return_counts=True)
    assert found.tolist() == [*range(4), *range(12, 24)] and set(counts) == {25}
    assert video.part_of(index, 30, 1, None, 0.9)[0] == (12, 30)  # none fits: the longest


@pytest.mark.parametrize("fps, expected", [(25.0, [0, 0, 1, 1, 2, 3, 4, 4]), (5.0, [0, 3, 5, 10])])
def test_frames_nearest_in_time_of_an_uneven_file(tmp_path, fps, expected):
    times = [0, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 20, 25]  # in 1/25 s
    written(tmp_path / "x.mp4", range(len(times)), times=times)
    data = numbered(tmp_path, frames=len(expected), fps=fps, start="first")
    nearest = [int(np.argmin(np.abs(np.array(times) - n * 25 / fps))) for n in range(len(expected))]
    assert clip_numbers(data[0]) == nearest == expected
