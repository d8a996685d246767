"""`vistok info` of files: what a .vtk file and a video tell, alone and beside a tokenizer."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.test_cli import call, mistake
from tests.support.films import film, turned
from tests.test_causal import built
from vistok.tokenizer import Tokenizer


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder: a causal tokenizer of 9 frames `model`, a film of 14 frames."""
    monkeypatch.chdir(tmp_path)
    built().save_pretrained("model")
    film(tmp_path / "film.mp4", 14, size=(18, 34))
    return tmp_path


def rows(*words):
    lines = [line for line in call("info", *words).splitlines() if len(line) > 25]
    return {line[:24].strip(): line[25:] for line in lines}


def test_a_video(place):
    assert rows("film.mp4") == {
        "frames": "14",
        "fps": "25",
        "seconds": "0.560",
        "size": "34x18",
        "codec": "mpeg4 in mov/mp4",
    }
    found = rows("film.mp4", "--tokenizer", "model")
    assert found["tokenizer takes"] == "9 frames at a time, or 1 + k x 4: 1, 5, 9, ..."
    model = Tokenizer.from_pretrained("model")
    spec, block = model.spec(), model.block_spec
    assert found["first frames"] == f"{spec.length} tokens, {spec.bits} bits"
    whole = f"5 blocks, {5 * block.length} tokens, {5 * block.bits} bits"
    assert found["whole video"] == f"{whole}, with --pad (frames that are missing: 3)"


def test_a_video_that_is_turned_uneven_and_heard(place):
    made = place / "odd.mp4"
    with av.open(str(made), "w") as file:
        stream, sound = file.add_stream("libx264", rate=25), file.add_stream("aac", rate=8000)
        stream.width, stream.height, stream.pix_fmt = 34, 18, "yuv420p"
        stream.options = {"bf": "0"}
        for number, time in enumerate((0, 1, 2, 7, 9)):
            frame = av.VideoFrame.from_ndarray(np.full((18, 34, 3), 40 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for _ in range(8):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.sample_rate = 8000
            file.mux(sound.encode(noise))
        file.mux(sound.encode())
    turned(film(place / "phone.mp4", 3))
    found = rows("turned.mp4")
    assert found["size"] == "48x64" and found["rotation"] == "90 degrees clockwise, stored as 64x48"
    found = rows("odd.mp4")
    assert found["frames"] == "5" and found["audio"] == "is left out"
    assert "on average; a frame is shown for 0.04 to 0.2 seconds" in found["fps"]


def test_vtk_files(place):
    call("encode", "model", "film.mp4", "--pad", "repeat", "--batch", "3", "--names")
    found = rows("film.vtk")
    size = (place / "film.vtk").stat().st_size
    assert found["file"] == f"{size} bytes, packed codes" and found["made of"] == "film.mp4"
    assert found["parts"] == "one stream of 5 blocks" and found["size"] == "14 frames of 8x8"
    assert found["fps"] == "25" and found["seconds"] == "0.560"
    made_by = Tokenizer.from_pretrained("model").codes_sha256()[:8]
    assert found["made by weights"] == made_by
    inside = rows("film.vtk", "--tokenizer", "model")
    assert inside["tokens"] == "20 of 20" and inside["bits"] == "120"
    call("encode", "model", "film.mp4", "--out", "first.vtk")
    found = rows("first.vtk")
    assert found["size"] == "9 frames of 8x8" and found["seconds"] == "0.360"
    call("encode", "model", "film.mp4", "--out", "windows.vtk", "--overlap", "4")
    assert rows("windows.vtk")["parts"] == "2 windows, overlap 4"


def test_a_vtk_file_of_an_image_says_its_size_alone(place, make_tokenizer):
    make_tokenizer("vq").save_pretrained("images")
    Image.new("RGB", (24, 8)).save("wide.png")
    call("encode", "images", "wide.png")
    call("encode", "images", "wide.png", "--tile", "--out", "tiles.vtk")
    for file, size in (("wide.vtk", "8x8"), ("tiles.vtk", "24x8")):
        assert rows(file)["size"] == rows(file, "--tokenizer", "images")["size"] == size
    call("encode", "model", "wide.png", "--out", "still.vtk")
    assert rows("still.vtk")["parts"] == "one stream of 1 block"
    assert rows("still.vtk")["size"] == "8x8"
    said = mistake("info", "film.mp4", "--tokenizer", "images")
    assert "film.mp4: a video, and this tokenizer takes images" in said


def test_mistakes_are_one_line(place):
    assert "none.vtk: no such file" in mistake("info", "none.vtk")
    (place / "bad.vtk").write_bytes(b"vtk")
    assert "bad.vtk: no .vtk file" in mistake("info", "bad.vtk")
    (place / "new.vtk").write_bytes(b"vtk\x7f" + bytes(40))
    assert "new.vtk: version 7, coder 7" in mistake("info", "new.vtk")
    (place / "bad.mp4").write_bytes(b"no film")
    assert "bad.mp4: not a video" in mistake("info", "bad.mp4")
    assert "steps=3: film.mp4 is a file" in mistake("info", "film.mp4", "steps=3")
    assert "--tokenizer model: expected with" in mistake("info", "model", "--tokenizer", "model")
