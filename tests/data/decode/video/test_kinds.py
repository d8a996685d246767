"""Every frame of every kind of file has the right number, from wherever a clip begins."""

import os

import av
import numpy as np
import pytest

from tests.support.films import open_video
from tests.support.numbered import (
    SIZE,
    muxed,
    numbers_of,
    packed,
    packets,
    plain,
    remuxed,
    written,
)
from vistok.data import BadSample
from vistok.data.decode.video import clips
from vistok.data.decode.video.index import probe
from vistok.data.decode.video.probe import Probe

ALL = list(range(40))
REPORTED = {
    "anim.gif": list(range(12)),
    "begins_mid_gop.ts": list(range(11, 40)),
    "h264_bframes.avi": ALL,
    "h264_no_bframes.avi": ALL,
    "h264_open_gop.mp4": ALL,
    "hevc.mp4": ALL,
    "mpeg4.mp4": ALL,
    "vfr.mp4": ALL,
    "vp8.webm": ALL,
    "xvid_bframes.avi": ALL,
    "xvid_packed.avi": list(range(41)),
}
UNEVEN = [0, 3, 4, 5, 20, 21, 22, *range(40, 46), *range(60, 80), 100, 103, 104, 105, 120, 121, 130]
HEVC = {"codec": "libx265", "x265-params": "log-level=none:pools=1"}
VP8 = {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "400k"}
MADE = {
    **{f"h264.{ending}": {} for ending in ("avi", "mkv", "mov", "ts", "m2ts", "flv", "asf")},
    "h264.mts": {"format": "mpegts"},
    "h264_one_group.avi": {"bf": "3", "g": "300"},
    "h264_open_gop.avi": {"x264-params": "open-gop=1"},
    "h264_open_gop.ts": {"x264-params": "open-gop=1"},
    "h264_refresh.ts": {"x264-params": "intra-refresh=1"},
    "h264_interlaced.ts": {"x264-params": "tff=1"},
    "hevc.ts": HEVC,
    **{f"mpeg2.{e}": {"codec": "mpeg2video"} for e in ("ts", "mpg", "vob", "m2v", "mp4", "avi")},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    **{f"mpeg4.{ending}": {"codec": "mpeg4"} for ending in ("avi", "mkv", "ts")},
    "vp8.webm": VP8,
    "vp8_live.webm": {**VP8, "muxer": {"live": "1"}},
    "vp9.webm": {**VP8, "codec": "libvpx-vp9"},
    "rawvideo.avi": {"codec": "rawvideo"},
    "wmv2.wmv": {"codec": "wmv2", "bf": "0", "b": "2M"},
    "fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "frames.mp4": {"muxer": {"movflags": "frag_every_frame+empty_moov+default_base_moof"}},
    "later.mp4": {"times": range(5, 45)},
    "negative.mp4": {"times": range(-5, 35), "muxer": {"use_editlist": "0"}},
    "negative_decoding.mp4": {"muxer": {"movflags": "negative_cts_offsets"}},
    "negative.mkv": {"times": range(-5, 35)},
    "around.ts": {"times": range(2386080, 2386120)},  # its clock of 33 bits begins anew
    **{f"uneven.{ending}": {"times": UNEVEN} for ending in ("mp4", "mkv", "ts", "flv", "avi")},
    "uneven_mpeg4.avi": {"times": UNEVEN, "codec": "mpeg4"},
}


@pytest.fixture(autouse=True)
def _quiet():
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(level)


def read(path, index: Probe, wanted) -> list[int]:
    return numbers_of(clips.frames(path, index, np.asarray(wanted), "pyav"))


def check_every_clip(path, numbers: list[int], shapes=((3, 2),)) -> Probe:
    """The index of a file, of which each clip of each shape (T, stride) has the right numbers."""
    index = probe(path)
    assert read(path, index, range(index.frames)) == numbers
    for frames, stride in shapes:
        for start in range(index.frames - (frames - 1) * stride):
            wanted = start + stride * np.arange(frames)
            assert read(path, index, wanted) == [numbers[n] for n in wanted], (frames, start)
    return index


@pytest.mark.parametrize("name", REPORTED)
def test_every_clip_of_a_reported_file(shared, name):
    path = shared / "reported" / "video_kinds" / name
    index = check_every_clip(path, REPORTED[name], ((1, 1), (4, 1), (3, 3)))
    if name == "begins_mid_gop.ts":
        assert index.unused.startswith("the first 6 of 35 frames cannot be decoded")
    else:
        assert not index.remarks
    if name in ("anim.gif", "vfr.mp4"):
        with av.open(str(path)) as file:
            times = [float(frame.time) for frame in file.decode(video=0)]
        assert np.allclose(index.times, np.array(times) - times[0])
    else:
        assert index.fps == 25.0 and np.allclose(index.times, np.arange(index.frames) / 25)


@pytest.mark.parametrize("name", REPORTED)
def test_clips_of_a_reported_file_at_another_rate(shared, name):
    path = shared / "reported" / "video_kinds" / name
    times, numbers = probe(path).times, REPORTED[name]
    for fps in (12.5, 10.0, 40.0):
        data = open_video(path=str(path), size=SIZE, frames=5, fps=fps, decoder="pyav")
        for epoch in range(6):
            found = numbers_of(data.sample(0, epoch, 1).pixels.permute(1, 2, 3, 0).numpy())
            asked = times[numbers.index(found[0])] + np.arange(5) / fps
            away = np.abs(times[:, None] - asked).round(6)
            assert found == [numbers[n] for n in away.argmin(0)], (fps, epoch)


def test_all_reported_files_are_known(shared):
    folder = shared / "reported" / "video_kinds"
    assert {path.name for path in folder.iterdir()} - {"README"} == set(REPORTED)


COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40)]


@pytest.mark.parametrize("name", ["bt601_pc", "bt601_tv", "bt709_pc", "bt709_tv"])
def test_colors_are_those_of_the_matrix_and_range_that_a_file_names(shared, name):
    frames = clips.read(shared / "reported" / "video_colour" / f"{name}.mp4", range(8))
    height, width = frames.shape[1:3]
    found = [frames[:, height // 2, width * (2 * i + 1) // 8] for i in range(4)]
    for pixels, color in zip(found, COLORS, strict=True):
        assert np.abs(pixels.astype(int) - color).max() <= 1, (name, color)


@pytest.mark.parametrize("name", MADE)
def test_every_clip_of_every_kind_of_file(tmp_path, name):
    options = dict(MADE[name])
    path = written(tmp_path / name, **options)
    index = check_every_clip(path, ALL)
    assert index.frames == 40 and not index.remarks
    times = np.array(options.get("times", range(40)))
    if not name.endswith(".avi"):  # which stores no times of display
        assert np.allclose(index.times, (times - times[0]) / 25, atol=2e-3)


def test_frames_outside_an_edit_list_are_no_part_of_the_film(tmp_path):
    check_every_clip(written(tmp_path / "x.mp4", times=range(-5, 35)), ALL[5:])


def test_packed_b_frames(tmp_path):
    for empty in (0, 1, 3):
        path = packed(tmp_path / f"{empty}.avi", empty=empty)
        index = check_every_clip(path, list(range(41)))
        assert not index.timed and index.fps == 25.0 and not index.remarks


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.flv"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_of_decoding_that_pass_as_times_of_display(tmp_path, name, codec):
    """What a copy of an AVI into another container leaves."""

    def flatten(packet, place):
        packet.pts = packet.dts = round(place / 25 / packet.time_base)

    if (codec, name) == ("mpeg4", "x.flv"):
        pytest.skip("FLV does not take MPEG-4")
    source = written(tmp_path / "source.mp4", codec=codec)
    index = check_every_clip(remuxed(source, tmp_path / name, flatten), ALL)
    assert not index.timed and index.fps == pytest.approx(25, rel=1e-3)


@pytest.mark.parametrize("codec, first", [("libx264", 11), ("mpeg2video", 12), ("mpeg4", 12)])
@pytest.mark.parametrize("ending", ["ts", "avi"])
@pytest.mark.parametrize("cut", [1, 5])
def test_a_stream_that_begins_inside_a_group_of_pictures(tmp_path, codec, first, ending, cut):
    made, stream = packets(ALL, codec, format="avi" if ending == "avi" else "mpegts")
    path = muxed(tmp_path / f"x.{ending}", plain(made[cut:]), stream)
    index = check_every_clip(path, ALL[first:])
    assert index.unused == (
        f"the first {first - cut} of {40 - cut} frames "
        f"cannot be decoded: the file begins inside a group of pictures"
    )


def test_a_transport_stream_that_begins_inside_a_packet(tmp_path):
    path = written(tmp_path / "x.ts")
    path.write_bytes(path.read_bytes()[1000:])
    check_every_clip(path, ALL[11:])
    list_of_others = b"#EXTM3U\nsecret.ts\n".ljust(50, b"\n") + b"G".ljust(188, b"\n") * 6
    path.write_bytes(list_of_others)
    with pytest.raises(BadSample, match=r"cannot be opened as a video|no video stream"):
        probe(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_clock_that_restarts(tmp_path, codec):
    one = written(tmp_path / "1.ts", range(20), codec)
    two = written(tmp_path / "2.ts", range(10, 30), codec)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    index = check_every_clip(both, [*range(20), *range(10, 30)])
    assert np.allclose(index.times, np.arange(40) / 25) and index.fps == 25.0
    assert index.parts == ((0, 20), (20, 40)) and not index.unused
    assert index.oddities == ("its clock restarts at frame 20; no clip spans that",)
    found, remarks = clips.beginning(both, 21)
    assert (numbers_of(found), remarks) == (list(range(20)), index.remarks)


@pytest.mark.parametrize("codec, first", [("libx264", 21), ("mpeg2video", 22)])
def test_a_recording_that_is_joined_inside_a_group_of_pictures(tmp_path, codec, first):
    one = written(tmp_path / "1.ts", range(20), codec)
    made, stream = packets(range(10, 30), codec)
    two = muxed(tmp_path / "2.ts", plain(made[5:]), stream)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    index = check_every_clip(both, [*range(20), *range(first, 30)])
    assert index.parts == ((0, 20), (20, 20 + 30 - first))
    assert f"{35 - index.frames} of its 35 packets give no frame" in index.unused


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mpeg4"])
def test_a_stream_that_changes_its_size(tmp_path, codec):
    small, stream = packets(range(20), codec)
    large, _ = packets(range(20, 40), codec, (96, 128))
    path = muxed(tmp_path / "x.ts", plain(small) + plain(large, 20), stream)
    index = probe(path, decode=True)
    assert index.sizes == ((0, SIZE), (20, (96, 128))) and not index.unused
    assert index.oddities == ("from frame 20 on frames have 128x96 pixels, not 64x48",)
    shapes = [frame.shape[:2] for frame in clips.frames(path, index, np.arange(18, 22), "pyav")]
    assert shapes == [SIZE, SIZE, (96, 128), (96, 128)]
    for start in range(37):
        assert read(path, index, range(start, start + 4)) == list(range(start, start + 4))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
def test_no_clip_holds_what_was_lost(tmp_path, codec):
    """One packet of 188 bytes is gone: a frame, and all that refer to it until a key frame."""
    options = HEVC if codec == "libx265" else {"codec": codec}
    path = written(tmp_path / "x.ts", **options)
    whole, gaps = path.read_bytes(), 0
    for lost in range(3, len(whole) // 188, 4):
        path.write_bytes(whole[: lost * 188] + whole[(lost + 1) * 188 :])
        index = probe(path, decode=True)
        numbers = read(path, index, range(index.frames))
        for start, stop in index.parts:
            assert (np.diff(numbers[start:stop]) == 1).all(), lost
        if len(index.parts) > 1:
            gaps += 1
            assert "packets were lost" in index.unused and index.fps == 25.0
    assert gaps > 3


def test_a_codec_without_decoder_is_named(tmp_path):
    path = written(tmp_path / "x.avi", codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZQ9"))
    with pytest.raises(BadSample, match=r"x\.avi: .*there is no decoder for its codec"):
        probe(path)


def test_a_named_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(BadSample, match=r"x\.mp4: cannot be read .*is a"):
        probe(tmp_path / "x.mp4")
