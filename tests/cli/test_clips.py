"""Clips on the command line: a video to bytes, bytes to a gif, an mp4 or a row of frames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_cli import call, mistake
from tests.support.numbered import muxed, numbers_of, packed, packets, plain, written
from vistok.cli import media
from vistok.config import validate
from vistok.data.decode.video import clips
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens.codec import Codec


@pytest.fixture
def place(tree, tmp_path, monkeypatch):
    """The current folder: a tokenizer of clips of 4 frames `model`, a gif of 6 frames."""
    monkeypatch.chdir(tmp_path)
    config = tree()
    config["frames"] = 4
    for part in ("encoder", "decoder"):
        config[part]["patches"] = {**config[part].get("patches", {}), "frames": 2}
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained("model")
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)) for _ in range(6)]
    frames[0].save("video.gif", save_all=True, append_images=frames[1:], duration=100)
    return tmp_path


def test_to_bytes_and_back(place):
    import av

    call("encode", "model", "video.gif")
    model = Tokenizer.from_pretrained("model")
    codec = Codec(model.spec(), model.codes_sha256())
    assert codec.read(Path("video.vtk").read_bytes()).fps == 10
    for suffix in ("gif", "mp4"):
        call("decode", "model", "video.vtk", "--out", "back", "--format", suffix)
        with av.open(f"back/video.{suffix}") as file:
            shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert len(shown) == 4 and shown[0].shape == (8, 8, 3)
    call("decode", "model", "video.vtk", "--format", "png")
    assert Image.open("video.png").size == (4 * 8 + 5 * 2, 8 + 2 * 2)
    assert "clip                     4 x 8 x 8" in call("info", "model")


def test_written_clips_have_the_rate_and_size_that_were_asked_for(place):
    import av

    call("encode", "model", "video.gif")
    for suffix, rate in (("mp4", 10), ("mp4", 24000 / 1001), ("webp", 12.5), ("gif", 20)):
        rates = ("--fps", str(rate)) if rate != 10 else ()
        call("decode", "model", "video.vtk", "--out", f"out.{suffix}", "--overwrite", *rates)
        if suffix == "mp4":
            with av.open("out.mp4") as file:
                stream = file.streams.video[0]
                assert float(stream.average_rate) == pytest.approx(rate, abs=1e-4)
                assert stream.codec_context.pix_fmt == "yuv420p"
                assert stream.codec_context.name == "h264"
        else:
            with Image.open(f"out.{suffix}") as image:
                assert image.n_frames == 4 and image.size == (8, 8)
                image.seek(1)
                image.load()
                assert image.info["duration"] == 1000 / rate
    assert "--fps 9: png does not move" in mistake(
        "decode", "model", "video.vtk", "--format", "png", "--fps", "9"
    )


def test_a_folder_of_frames(place):
    call("encode", "model", "video.gif")
    call("decode", "model", "video.vtk", "--out", "back", "--format", "frames")
    names = sorted(path.name for path in Path("back/video.frames").iterdir())
    assert names == [f"{n:05d}.png" for n in range(1, 5)]
    assert "exists already" in mistake("decode", "model", "video.vtk", "--out", "back/video.frames")
    (Path("back/video.frames") / "00005.png").write_bytes(b"")  # of a longer clip
    call("decode", "model", "video.vtk", "--out", "back/video.frames", "--overwrite")
    assert len(list(Path("back/video.frames").iterdir())) == 4


def test_a_clip_of_odd_sides_keeps_its_pixels(tmp_path):
    import av

    shade = np.tile(np.linspace(0, 255, 33)[:, None, None], (1, 51, 3)).astype(np.uint8)
    media.write_frames(iter([shade] * 3), tmp_path / "odd.mp4", 25)
    with av.open(str(tmp_path / "odd.mp4")) as file:
        ((first, *_),) = [list(file.decode(video=0))]
        shown = first.to_ndarray(format="rgb24")
    assert shown.shape == (34, 52, 3)
    assert np.abs(shown[:33, :51].astype(int) - shade).mean() < 3


def test_the_frames_of_odd_videos(place):
    """Without times of display, beginning inside a group of pictures, cut off."""
    made, stream = packets(range(20))
    muxed(place / "late.ts", plain(made[5:]), stream)
    written(place / "b.avi", range(20))
    packed(place / "packed.avi", 9)
    for name, first in {"b.avi": 0, "late.ts": 11, "packed.avi": 0}.items():
        assert numbers_of(clips.beginning(name, 4)[0]) == list(range(first, first + 4))
        said = call("encode", "model", name)
        assert ("late.ts: the first 6 of 15 frames cannot be decoded" in said) == ("late" in name)
        model = Tokenizer.from_pretrained("model")
        codec = Codec(model.spec(), model.codes_sha256())
        assert codec.read(Path(name).with_suffix(".vtk").read_bytes()).fps == 25


def test_mistakes_are_one_line(place, monkeypatch):
    Image.new("RGB", (8, 8)).save("still.gif")
    assert "still.gif: 1 frames; this tokenizer takes clips of 4" in mistake(
        "encode", "model", "still.gif"
    )
    Image.new("RGB", (8, 8)).save("image.png")
    assert "image.png" in mistake("encode", "model", "image.png")
    copy = ("edit", "copy", "model", "image.png", "image.png", "--positions", "0")
    assert "edit copy: this tokenizer takes clips" in mistake(*copy)
    call("encode", "model", "video.gif")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'vistok[video]'" in mistake(
        "decode", "model", "video.vtk", "--format", "mp4"
    )


def test_clips_of_any_frame_rate(tmp_path, monkeypatch):
    """A second is one sample at every rate; decoding may choose another."""
    from tests.support.recipes import TINY, read_config

    monkeypatch.chdir(tmp_path)
    config = read_config(TINY["vfrtok"]).task.tokenizer
    Tokenizer(config).save_pretrained("any")
    frames = [Image.fromarray(np.full((32, 32, 3), i, np.uint8)) for i in range(40)]
    frames[0].save("slow.gif", save_all=True, append_images=frames[1:], duration=50)  # 20 fps
    frames[0].save(
        "fast.gif", save_all=True, append_images=[*frames[1:], *frames], duration=20
    )  # 50 fps
    assert "period                   1 s at any frame rate" in call("info", "any")
    call("encode", "any", "slow.gif", "fast.gif", "--out", "first")
    model = Tokenizer.from_pretrained("any")
    codec = Codec(model.spec(), model.codes_sha256())
    sizes = {name: codec.read_file(f"first/{name}.vtk").tokens.size[0] for name in ("slow", "fast")}
    assert sizes == {"slow": 20, "fast": 50}
    call("encode", "any", "slow.gif", "--whole")
    whole = codec.read_file("slow.vtk")
    assert len(whole.tokens) == 2 and whole.chunks.frames == 40  # 2 s
    for file, rate, count in (
        ("slow.vtk", None, 40),
        ("slow.vtk", 10, 20),
        ("slow.vtk", 50, 100),
        ("first/fast.vtk", 25, 25),
        ("first/slow.vtk", None, 20),
    ):
        words = () if rate is None else ("--fps", str(rate))
        call("decode", "any", file, "--out", "out.gif", "--overwrite", *words)
        with Image.open("out.gif") as image:
            assert image.n_frames == count, (file, rate)
            image.seek(1)
            image.load()
            assert image.info["duration"] == 1000 // (rate or 20)
