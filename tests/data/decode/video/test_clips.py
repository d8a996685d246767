"""Decoding of videos: frames by number, by either decoder, and files that are none."""

import csv
import logging
import os

import av
import numpy as np
import pytest

from tests.support import films
from tests.support.films import HAS_TORCHCODEC, decoders, film, numbers, open_video, taken
from vistok.data import (
    BadSample,
    DataError,
)
from vistok.data.decode.video import clips, pyav, reading, torchcodec


@decoders
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
def test_the_frames_asked_for_are_read(tmp_path, decoder, name):
    path = film(tmp_path / name)
    if (decoder, name) == ("torchcodec", "x.avi"):
        pytest.skip("old FFmpeg libraries lose the end of such files; auto goes on with PyAV")
    for wanted in ([0, 1, 2, 3], [13, 14], [39], [3, 15, 38], [24, 25, 36], [12, 11, 12], [23]):
        assert numbers(clips.read(path, wanted, decoder)) == wanted
    found = clips.probe(path)
    assert (found.frames, found.fps, found.size, found.timed) == (40, 25.0, (48, 64), True)
    assert np.allclose(found.times, np.arange(40) / 25)


def test_pyav_decodes_from_the_key_frame_on(tmp_path, monkeypatch):
    path, seen = film(tmp_path / "long.mp4", count=240, bf="0"), []
    number = pyav._number
    monkeypatch.setattr(pyav, "_number", lambda *args: seen.append(number(*args)) or number(*args))
    clips.read(path, [230, 231], "pyav")
    assert seen == [228, 229, 230, 231]
    seen.clear()
    clips.read(path, [1, 121, 229], "pyav")  # jumps where that is worth it
    assert seen == [0, 1, 120, 121, 228, 229]


def test_files_without_times_are_counted(tmp_path):
    path = film(tmp_path / "raw.m1v", codec="mpeg1video", format="mpeg1video")
    found = clips.probe(path)
    assert (found.frames, found.fps, found.timed) == (40, 25.0, False)
    assert numbers(clips.read(path, [5, 30, 31])) == [5, 30, 31]


@decoders
def test_frames_are_turned_upright(tmp_path, decoder):
    path = film(tmp_path / "phone.mp4")
    flat, turned = clips.read(path, [7], decoder), films.turned(path)
    upright = clips.read(turned, [7], decoder)
    assert flat.shape == (1, 48, 64, 3) and upright.shape == (1, 64, 48, 3)
    assert (upright == np.rot90(flat, -1, (1, 2))).all()  # clockwise
    assert clips.probe(turned, decode=True).sizes == ((0, (64, 48)),)
    assert upright[0, :32].mean() < 60 < 180 < upright[0, 32:].mean()


@pytest.mark.skipif(not HAS_TORCHCODEC, reason="torchcodec cannot be used")
def test_both_decoders_give_the_same_frames(shared):
    """Equal on the machine this was written on; other FFmpegs may round otherwise."""
    for path in sorted((shared / "video_clips").glob("*/*.mp4"))[::24]:
        one, two = (clips.read(path, [0, 5, 12, 13], d) for d in ("torchcodec", "pyav"))
        away = np.abs(one.astype(int) - two)
        assert one.shape == two.shape and away.max() <= 3 and away.mean() < 0.5


def test_every_shared_clip_has_the_index_that_its_table_says(shared):
    with open(shared / "video_clips" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 173
    for row in rows:
        found = clips.probe(shared / "video_clips" / row["path"])
        assert found.frames == int(row["frames"])
        assert found.size == (int(row["height"]), int(row["width"]))
        assert found.fps == pytest.approx(float(row["fps"]), abs=0.01)


def test_auto_says_which_decoder_and_why(tmp_path, monkeypatch, caplog):
    film(tmp_path / "x.mp4")
    monkeypatch.setattr(torchcodec, "version", lambda: ("", "torchcodec does not load (no FFmpeg)"))
    clips.choose.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            data = open_video(path=str(tmp_path))
            open_video(path=str(tmp_path))
        (line,) = caplog.messages
        assert line.startswith("videos are decoded with pyav") and "no FFmpeg" in line
        assert data.record()["decoder"] == f"pyav {av.__version__}"
        assert taken(open_video(path=str(tmp_path), start="first")[0]) == [0, 1, 2, 3]
        with pytest.raises(DataError, match=r"decoder=torchcodec: .*no FFmpeg.*decoder=pyav"):
            open_video(path=str(tmp_path), decoder="torchcodec")
    finally:
        clips.choose.cache_clear()


def test_auto_goes_on_where_the_first_decoder_fails(tmp_path, monkeypatch):
    path = film(tmp_path / "x.mp4")
    first = lambda path, index, wanted: iter(pyav.by_pyav(path, index, wanted[:2]))
    monkeypatch.setattr(clips, "choose", lambda decoder: (("torchcodec", "pyav"), "both"))
    monkeypatch.setitem(clips._DECODERS, "torchcodec", first)
    assert numbers(clips.read(path, [4, 5, 6, 20])) == [4, 5, 6, 20]


@pytest.mark.skipif(not HAS_TORCHCODEC, reason="torchcodec cannot be used")
def test_a_frame_of_another_time_is_refused(tmp_path):
    path = film(tmp_path / "x.mp4")
    index = clips.probe(path)
    moved = clips.Probe(**{**vars(index), "pts": index.pts + int(index.durations[0]) // 3})
    with pytest.raises(BadSample, match=r"another frame|no more frames"):
        list(clips.frames(path, moved, np.array([20, 21]), "torchcodec"))


def test_one_thread_a_decoder(tmp_path):
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads where Linux lists them")
    path = film(tmp_path / "x.mp4", size=(256, 256))
    clips.read(path, [0])
    before, during = len(os.listdir("/proc/self/task")), []
    for decoder in clips.choose("auto")[0]:
        for _ in clips.frames(path, clips.probe(path), np.arange(40), decoder):
            during.append(len(os.listdir("/proc/self/task")))
    assert set(during) == {before}


def test_what_is_no_video_is_refused(tmp_path, fails, monkeypatch):
    film(tmp_path / "secret.mp4")
    cases = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"<html>404</html>", "not a video"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nsecret.mp4\n", "not a video"),
        "concat.mp4": (b"ffconcat version 1.0\nfile secret.mp4\n", "not a video"),
        "half.mp4": ((tmp_path / "secret.mp4").read_bytes()[:300], "cannot be opened"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with fails(BadSample, f"{name}: .*{words}"):
            clips.probe(tmp_path / name)
    with fails(BadSample, "cannot be read"):
        clips.probe(tmp_path / "gone.mp4")
    monkeypatch.setattr(reading, "PIXEL_LIMIT", 3000)
    with fails(BadSample, "declares 64x48 pixels, over the limit of 0.003 Mpx"):
        clips.probe(tmp_path / "secret.mp4")
