"""The data part video: clips of folders and tables, damage, resumes, loaders."""

import csv
import json
import os
import pickle

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.films import decoders, film, open_video, taken, turned
from vistok.config import ConfigError, validate
from vistok.data import (
    BadSample,
    DataError,
    EvalLoader,
    FolderConfig,
    Order,
    TrainLoader,
    VideoConfig,
    to_device,
)
from vistok.data.decode.transforms import Transform
from vistok.data.decode.video import clips
from vistok.data.kinds import video


@pytest.fixture
def folder(tmp_path):
    """Two classes, nested, one file without a class, one that is no video."""
    film(tmp_path / "clips" / "b" / "2.mp4", count=20)
    film(tmp_path / "clips" / "b" / "deep" / "er" / "1.avi", count=12)
    film(tmp_path / "clips" / "a" / "x.mkv", count=30)
    film(tmp_path / "clips" / "z.mp4", count=8)
    (tmp_path / "clips" / "a" / "notes.txt").write_text("no video")
    return tmp_path / "clips"


# Broken and odd files


@decoders
def test_broken_videos_get_what_the_manifest_says(broken, tmp_path, fails, decoder):
    files = json.loads((broken / "manifest.json").read_text())["files"]
    names = {f["file"]: f["expect"] for f in files if f["kind"] == "video"}
    assert set(names) == {
        "truncated_moov_last.mp4", "truncated_midstream.mp4", "one_frame.mp4", "odd_size.mp4",
        "no_video_stream.mp4",
    }  # fmt: skip
    for name in (*names, "animated.gif"):
        (tmp_path / name).symlink_to(broken / name)

    def opened(**values):
        data = open_video(path=str(tmp_path), decoder=decoder, start="first", **values)
        return lambda name: data[data.names.index(name)]

    read = opened(frames=16)
    with fails(BadSample, "truncated_moov_last.mp4: cannot be opened as a video"):
        read("truncated_moov_last.mp4")
    with fails(BadSample, "no_video_stream.mp4: has no video stream, only audio"):
        read("no_video_stream.mp4")
    with fails(BadSample, "one_frame.mp4: 1 frames at 25 fps found, 16 at stride 1 wanted"):
        read("one_frame.mp4")
    still = opened(frames=16, pad_frames="repeat")("one_frame.mp4")
    assert still.pixels.shape == (3, 16, 16, 16) and still.fps == 25.0
    assert (still.pixels == still.pixels[:, :1]).all()
    assert read("truncated_midstream.mp4").pixels.shape == (3, 16, 16, 16)  # 22 decode
    with fails(BadSample, "22 frames at 25 fps found, 24 at stride 1 wanted.*cannot be decoded"):
        opened(frames=24)("truncated_midstream.mp4")
    with fails(BadSample, "found, 40 at stride 1 wanted"):
        opened(frames=40)("truncated_midstream.mp4")
    padded = opened(frames=40, pad_frames="repeat")("truncated_midstream.mp4").pixels
    assert (padded[:, 22:] == padded[:, 21:22]).all()
    assert not torch.equal(padded[:, 21], padded[:, 20])
    gif = opened(frames=10, size=(128, 228))("animated.gif")
    assert gif.fps == 10.0 and gif.pixels.shape == (3, 10, 128, 228)
    assert all(not torch.equal(gif.pixels[:, t], gif.pixels[:, t + 1]) for t in range(9))
    with Image.open(broken / "animated.gif") as image:
        for t in (0, 9):
            image.seek(t)
            expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            assert torch.equal(gif.pixels[:, t], expected)
    with fails(BadSample, "10 frames at 10 fps found, 11 at stride 1 wanted"):
        opened(frames=11)("animated.gif")


@decoders
def test_line_padding_does_not_leak(broken, decoder):
    frames = clips.read(broken / "odd_size.mp4", range(20), decoder).astype(int)
    assert frames.shape == (20, 50, 66, 3)
    inside = np.abs(np.diff(frames, axis=2)).mean()
    assert np.abs(frames[:, :, -1] - frames[:, :, -2]).mean() < inside
    assert np.abs(frames[:, -1] - frames[:, -2]).mean() < inside


def test_a_damaged_file_gives_the_same_clips_in_any_order(broken, tmp_path):
    (tmp_path / "x.mp4").symlink_to(broken / "truncated_midstream.mp4")
    data = open_video(path=str(tmp_path), frames=12)
    one = [data.sample(0, epoch, 3).pixels for epoch in range(12)]
    fresh = open_video(path=str(tmp_path), frames=12)
    two = [fresh.sample(0, epoch, 3).pixels for epoch in reversed(range(12))]
    assert all(torch.equal(a, b) for a, b in zip(one, reversed(two), strict=True))
    assert len({bytes(clip.numpy()) for clip in one}) > 3


# Which frames a clip takes


def test_stride_and_start(tmp_path):
    film(tmp_path / "x.mp4", count=40)
    opened = lambda split="train", **values: open_video(split, path=str(tmp_path), **values)
    first = opened(start="first", stride=3)[0]
    assert taken(first) == [0, 3, 6, 9] and first.fps == pytest.approx(25 / 3)
    assert taken(opened(start="middle", stride=3)[0]) == [15, 18, 21, 24]
    assert taken(opened(start="first", frames=40)[0]) == list(range(40))
    data = opened(stride=3)
    begins = [taken(data.sample(0, epoch, seed=1)) for epoch in range(40)]
    assert all(clip == list(range(clip[0], clip[0] + 12, 3)) for clip in begins)
    assert len({clip[0] for clip in begins}) > 12 and max(c[0] for c in begins) <= 30
    assert begins == [taken(data.sample(0, epoch, seed=1)) for epoch in range(40)]
    assert begins != [taken(data.sample(0, epoch, seed=2)) for epoch in range(40)]
    values = {"val_path": str(tmp_path), "stride": 3}
    held = opened("val", **values)
    assert taken(held.sample(0, 5, 7)) == [15, 18, 21, 24] and held.record()["start"] == "middle"
    assert taken(opened("val", start="first", **values)[0]) == [0, 3, 6, 9]
    assert not held.flip and data.flip and (held.size, held.frames) == ((16, 16), 4)


def test_every_beginning_is_drawn_alike():
    index = clips.Probe(np.arange(20), np.ones(20), np.array([0]), 1, 1.0, (2, 2), True, 0)
    begins = [video.take(index, 20, 4, 2, None, p)[0] for p in np.arange(0, 1, 0.01)]
    assert np.bincount(begins).tolist() == pytest.approx([100 / 14] * 14, abs=1)
    assert video.take(index, 20, 4, 2, None, 0.9999).tolist() == [13, 15, 17, 19]
    assert video.take(index, 6, 4, 2, None, 0.5).tolist() == [0, 2, 4, 6]  # 6 is not there
    assert video.take(index, 20, 4, 1, 0.5, 0.9999).tolist() == [13, 15, 17, 19]


def test_frames_nearest_in_time(tmp_path):
    film(tmp_path / "x.mp4", count=40)
    opened = lambda **values: open_video(path=str(tmp_path), start="first", **values)
    eight = opened(fps=8.0, frames=6)[0]  # times 0, 3.125, 6.25, ... in frames
    assert taken(eight) == [0, 3, 6, 9, 12, 16] and eight.fps == 8.0  # 12.5: the earlier
    assert taken(opened(fps=50.0, frames=6)[0]) == [0, 0, 1, 1, 2, 2]
    assert taken(opened(fps=25.0, frames=40)[0]) == list(range(40))
    with pytest.raises(BadSample, match=r"40 frames at 25 fps found, 14 at 8 fps wanted"):
        opened(fps=8.0, frames=14)[0]  # the last would be at 40.6
    padded = opened(fps=8.0, frames=16, pad_frames="repeat")[0]
    assert taken(padded)[-4:] == [37, 39, 39, 39]
    uneven = np.array([0, 10, 11, 12, 50, 90])
    index = clips.Probe(uneven, np.ones(6), np.array([0]), 0.1, 5 / 9, (2, 2), True, 0)
    assert video.take(index, 6, 3, 1, 0.25, 0.0).tolist() == [0, 4, 5]


def test_every_frame_is_cut_by_the_same_window(tmp_path):
    path = film(tmp_path / "x.mp4", size=(48, 96))
    values = {"size": (12, 16), "crop": "random", "min_share": 0.5, "pad": 3}
    data = open_video(path=str(tmp_path), start="first", **values)
    transform = Transform(FolderConfig(path=".", **values), augment=True)
    frames = [Image.fromarray(frame) for frame in clips.read(path, [0, 1, 2, 3])]
    clips_ = [data.sample(0, epoch, seed=4).pixels for epoch in range(6)]
    for epoch, clip in enumerate(clips_):
        assert clip.shape == (3, 4, 12, 16) and clip.dtype == torch.uint8 and clip.is_contiguous()
        for t, frame in enumerate(frames):
            assert torch.equal(clip[:, t], transform(frame, 0, epoch, 4))
    edges = [(clip[0, 0] < 120).sum().item() for clip in clips_]
    assert len(set(edges)) > 2  # the window moves from epoch to epoch


# Folders, tables, loaders


def test_folders(folder):
    data = open_video(path=str(folder))
    assert [s.name for s in data] == ["a/x.mkv", "b/2.mp4", "b/deep/er/1.avi", "z.mp4"]
    assert [s.label for s in data] == [0, 1, 1, -1] and data.classes == ("a", "b")
    record = data.record()
    assert (record["kind"], record["count"], record["ignored"]) == ("video", 4, 1)
    assert (record["frames"], record["stride"], record["start"]) == (4, 1, "random")
    assert record["filter"] == "bicubic" and json.loads(json.dumps(record)) == record
    again = pickle.loads(pickle.dumps(data))
    assert not again._kept and torch.equal(again[2].pixels, data[2].pixels)
    film(folder / "b" / "2.mp4", count=21)
    assert open_video(path=str(folder)).record()["manifest"] != record["manifest"]


def test_indices_are_kept_within_bounds(folder, monkeypatch):
    monkeypatch.setattr(video, "_KEPT", 45)  # frames; the files have 30, 20, 12 and 8
    data = open_video(path=str(folder))
    for _ in range(2):
        kept = [data.sample(i) and [file for file, _ in data._kept] for i in (0, 1, 2, 3)]
    names = ["a/x.mkv", "b/2.mp4", "b/deep/er/1.avi", "z.mp4"]
    assert kept == [[names[3], names[0]], names[1:2], names[1:3], names[1:]]
    assert data._room == 5


def table(folder, rows, name="list.csv", bom=""):
    (folder / name).write_text(bom + "\n".join(rows) + "\n")
    return str(folder / name)


def test_a_table_lists_clips(folder, fails):
    rows = ["path,label,source", "b/2.mp4,dog,s1", 'a/x.mkv,"cat, tabby",s2', "z.mp4,,s1"]
    data = open_video(path=table(folder, rows, bom="\ufeff"))
    assert [s.name for s in data] == ["b/2.mp4", "a/x.mkv", "z.mp4"]  # in the order of the rows
    assert data.classes == ("cat, tabby", "dog") and [s.label for s in data] == [1, 0, -1]
    assert open_video(path=table(folder, rows), label_column=None).classes == ()
    plain = table(folder, ["file,kind", "z.mp4,10", "b/2.mp4,9"])
    assert open_video(path=plain, path_column="file").classes == ()  # `label` may be missing
    named = open_video(path=plain, path_column="file", label_column="kind")
    assert named.classes == ("9", "10") and named.labels == [1, 0]  # as numbers
    for values, words in (
        ({}, "no column 'path'; it has file, kind"),
        ({"path_column": "file", "label_column": "y"}, "no column 'y'"),
        ({"path_column": "file", "group_column": "source"}, "no column 'source'"),
    ):
        with fails(DataError, words):
            open_video(path=plain, **values)
    with fails(DataError, "no rows"):
        open_video(path=table(folder, ["path,label"]))
    with fails(DataError, "row 2 lacks a path"):
        open_video(path=table(folder, ["path,label", "z.mp4,1", ",2"]))
    with fails(DataError, "cannot be read"):
        open_video(path=str(folder / "gone.csv"))
    gone = open_video(path=table(folder, ["path", "z.mp4", "gone.mp4"]))
    with fails(BadSample, "gone.mp4: cannot be read"):
        gone[1]
    assert gone.record()["count"] == 2


def test_clips_of_one_source_stay_together(shared):
    path = str(shared / "video_clips" / "metadata.csv")
    with open(path, newline="") as file:
        source = {row["path"]: row["source_group"] for row in csv.DictReader(file)}
    sides = {}
    for column in ("source_group", None):
        for split in ("train", "val"):
            data = open_video(split, path=path, val_share=0.25, group_column=column)
            sides[column, split] = set(data.names)
            assert len(data.classes) == 12  # of the whole table
        train, val = sides[column, "train"], sides[column, "val"]
        assert not train & val and len(train | val) == 173 and 20 < len(val) < 70
        both = {source[n] for n in train} & {source[n] for n in val}
        assert (not both) == (column == "source_group")


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_over_the_end_of_an_epoch(folder, tmp_path, workers):
    (folder / "a" / "broken.mp4").write_bytes(b"<html>404</html>")
    data = open_video(path=str(folder), crop="random", min_share=0.5)
    order = lambda: Order(len(data), 3, seed=6)
    options = {"steps": 12, "workers": workers, "max_bad_share": 1.0}
    data[1]  # what the parent has read must not disturb its workers
    whole = list(TrainLoader(data, order(), **options))
    fresh = open_video(path=str(folder), crop="random", min_share=0.5)
    rest = list(TrainLoader(fresh, order(), start_step=4, **options))
    alone = list(TrainLoader(fresh, order(), start_step=4, **{**options, "workers": 0}))
    assert len(rest) == 8 and order().epoch(4) < 3 < order().epoch(12)
    for one, two, three in zip(whole[4:], rest, alone, strict=True):
        for field in ("index", "pixels", "label", "flip", "fps"):
            assert torch.equal(getattr(one, field), getattr(two, field)), field
            assert torch.equal(getattr(one, field), getattr(three, field)), field
    assert one.pixels.shape == (3, 3, 4, 16, 16) and one.fps.tolist() == [25.0] * 3
    moved = to_device(one, "cpu")
    assert moved.fps.dtype == torch.float32 and moved.fps.tolist() == [25.0] * 3


def test_clips_are_mirrored_left_to_right(folder):
    data = open_video(path=str(folder))
    batch = next(iter(TrainLoader(data, Order(4, 64, seed=1), steps=1)))
    assert 0 < batch.flip.sum() < 64
    expected = batch.pixels.float() / 255
    expected[batch.flip] = expected[batch.flip].flip(4)
    assert torch.equal(to_device(batch, "cpu").pixels, expected)
    assert not torch.equal(expected, batch.pixels.float() / 255)


def test_images_have_no_rate(numbers):
    assert next(iter(EvalLoader(numbers(4), 2))).fps is None


def test_errors_are_one_line(tmp_path, fails):
    (tmp_path / "empty").mkdir()
    with fails(DataError, "data.video .*empty: no video in it .0 other files.; expected .*mp4"):
        open_video(path=str(tmp_path / "empty"))
    with fails(DataError, "data.video .*no such folder; expected a folder of videos"):
        open_video(path=str(tmp_path / "gone"))
    with fails(DataError, "no validation split"):
        open_video("val", path=str(tmp_path / "empty"))
    film(tmp_path / "t" / "a" / "1.mp4", count=2)
    film(tmp_path / "v" / "c" / "1.mp4", count=2)
    with fails(DataError, "data.video .*class 'c' is not one of the 1 classes"):
        open_video("val", path=str(tmp_path / "t"), val_path=str(tmp_path / "v"))
    for values, words in (
        ({}, "neither path nor val_path"),
        ({"path": "a", "fps": 8.0, "stride": 2}, "fps=8.0 and stride=2 contradict"),
        ({"path": "a", "group_column": "s"}, "group_column=s needs a csv"),
        ({"val_path": "a", "val_share": 0.1}, "one of val_share, val_path"),
    ):
        with pytest.raises(ConfigError, match=words):
            validate(VideoConfig, values)


def test_short_files_are_refused_padded_or_looped(tmp_path, fails):
    film(tmp_path / "s" / "x.mp4", count=5)
    read = lambda **values: open_video(path=str(tmp_path / "s"), start="first", **values)[0]
    with fails(BadSample, "5 frames at 25 fps found, 12 at stride 1 wanted"):
        read(frames=12, short="refuse")
    assert taken(read(frames=12, short="pad")) == [0, 1, 2, 3, 4, *[4] * 7]
    assert taken(read(frames=12, short="loop")) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert taken(read(frames=6, stride=2, short="loop")) == [0, 2, 4, 0, 2, 4]
    assert taken(read(frames=4, short="loop")) == [0, 1, 2, 3]
    with fails(ConfigError, "short=loop and pad_frames=repeat say the same; give short"):
        validate(VideoConfig, {"path": "x", "size": 8, "short": "loop", "pad_frames": "repeat"})


# Phones, sound, and who decodes


def test_a_turned_film_is_upright_in_a_clip(tmp_path):
    path = film(tmp_path / "films/x.mp4")
    flat = open_video(path=str(path.parent), start="first")[0].pixels
    turned(path)
    path.unlink()
    upright = open_video(path=str(path.parent), start="first")[0].pixels
    assert flat[..., :8].float().mean() < 60 < 180 < flat[..., 8:].float().mean()
    assert upright[..., :8, :].float().mean() < 60 < 180 < upright[..., 8:, :].float().mean()


def test_sound_is_left_out(tmp_path):
    path, heard = film(tmp_path / "a/x.mp4"), tmp_path / "b/x.mp4"
    heard.parent.mkdir()
    with av.open(str(path)) as source, av.open(str(heard), "w") as file:
        film_of, stream = source.streams.video[0], file.add_stream("aac", rate=8000)
        copied = file.add_stream_from_template(film_of)
        for packet in source.demux(film_of):
            if packet.size:
                packet.stream = copied
                file.mux(packet)
        for _ in range(8):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.sample_rate = 8000
            file.mux(stream.encode(noise))
        file.mux(stream.encode())
    silent, found = (open_video(path=str(one.parent), start="middle")[0] for one in (path, heard))
    assert torch.equal(found.pixels, silent.pixels) and found.fps == silent.fps


def test_workers_decode(tmp_path, monkeypatch):
    for number in range(4):
        film(tmp_path / f"films/{number}.mp4", 8)
    data, decode, pids = open_video(path=str(tmp_path / "films")), clips.frames, tmp_path / "pids"

    def noted(*args):
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")
        return decode(*args)

    monkeypatch.setattr(clips, "frames", noted)  # forked workers have it too
    for workers, mine in ((2, False), (0, True)):
        pids.unlink(missing_ok=True)
        loader = TrainLoader(data, Order(4, 2, 0), steps=4, workers=workers)
        assert len(list(loader)) == 4
        found = set(pids.read_text().split())
        assert (found == {str(os.getpid())}) == mine
        assert len(found) == (workers or 1) and (mine or str(os.getpid()) not in found)
