"""`vistok encode` and `decode` on folders and patterns: names, broken files, sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.cli import main
from vistok.tokenizer import Tokenizer
from vistok.tokens.codec import Codec

NAMES = ["a/b/three.jpg", "a/two.png", "one.png"]


@pytest.fixture
def place(make_tokenizer, tmp_path, monkeypatch):
    """The current folder: a tokenizer `model`, a folder `photos` of images in sub-folders."""
    monkeypatch.chdir(tmp_path)
    make_tokenizer(missing="drop").save_pretrained("model")
    for number, name in enumerate(NAMES):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(noise.byte().numpy()).save(path)
    Path("photos/notes.txt").write_text("none")
    return tmp_path


def files(folder: str) -> list[str]:
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


def codec() -> Codec:
    model = Tokenizer.from_pretrained("model")
    return Codec(model.spec(), model.codes_sha256())


def test_a_folder_goes_to_codes_and_back_with_its_sub_folders_and_names(place):
    said = call("encode", "--model", "model", "photos", "--out", "codes", "--batch", 2)
    assert files("codes") == ["a/b/three.vtk", "a/two.vtk", "one.vtk"]
    assert "left out: 1 other files (1 .txt)" in said and "3 images: " in said
    records = [codec().read_file(f"codes/{name}") for name in files("codes")]
    assert [record.name for record in records] == NAMES
    for name, record in zip(NAMES, records, strict=True):  # the same codes as alone
        call("encode", "model", f"photos/{name}", "--out", "alone.vtk", "--overwrite")
        alone = codec().read_file("alone.vtk")
        assert alone.name is None and torch.equal(alone.tokens.indices, record.tokens.indices)
    said = call("decode", "--model", "model", "codes", "--out", "back", "--format", "jpeg")
    assert files("back") == ["a/b/three.jpg", "a/two.jpg", "one.jpg"]
    size = Path("back/one.jpg").stat().st_size
    assert f"codes/one.vtk -> back/one.jpg (8x8, {size:,} bytes)" in said
    assert Image.open("back/one.jpg").format == "JPEG"


def test_patterns_and_single_files_of_any_format(place):
    call("encode", "model", "photos/**/*.png", "--out", "codes", "--length", 2)
    assert files("codes") == ["a/two.vtk", "one.vtk"]
    assert codec().read_file("codes/a/two.vtk").tokens.keep.tolist() == [2]
    call("encode", "model", "photos", "--out", "plain", "--no-names", "--workers", 0)
    assert codec().read_file("plain/one.vtk").name is None
    call("encode", "model", "photos/a", "photos/one.png", "--out", "both")  # as a shell's photos/*
    assert files("both") == ["a/b/three.vtk", "a/two.vtk", "one.vtk"]
    for out, form in (("x.webp", "WEBP"), ("x.jpeg", "JPEG"), ("x.png", "PNG")):
        call("decode", "model", "codes/one.vtk", "--out", out)
        assert Image.open(out).format == form
    assert "no file fits this pattern" in mistake("encode", "model", "photos/*.gif")
    assert "no image in this folder" in mistake("encode", "model", "model")
    assert "--quality 5: png has none" in mistake("decode", "model", "codes", "--quality", 5)


def test_broken_files_are_named_and_counted_and_the_others_go_on(place):
    Path("photos/a/broken.png").write_text("no image")
    result = CliRunner().invoke(main, ["encode", "model", "photos", "--out", "codes"])
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 1 and len(lines) == 2
    assert lines[0].startswith("photos/a/broken.png: not an image")
    assert lines[1].startswith("error: 1 of 4 files failed: photos/a/broken.png; the other 3")
    assert len(files("codes")) == 3
    Path("codes/a/torn.vtk").write_bytes(Path("codes/one.vtk").read_bytes()[:-3])
    result = CliRunner().invoke(main, ["decode", "model", "codes", "--out", "back"])
    assert result.exit_code == 1 and len(files("back")) == 3
    assert "codes/a/torn.vtk: damaged" in result.stderr and "1 of 4 files" in result.stderr
    Path("none").mkdir()
    Path("none/x.vtk").write_text("none")
    assert "none/x.vtk: no .vtk file" in mistake("decode", "model", "none", "--out", "nowhere")
    assert not Path("nowhere").exists()


def test_what_exists_stays_and_a_stopped_command_resumes(place):
    call("encode", "model", "photos/one.png", "--out", "codes")
    before = Path("codes/one.vtk").read_bytes()
    said = mistake("encode", "model", "photos", "--out", "codes")
    assert "codes/one.vtk: exists already; give --overwrite" in said
    assert files("codes") == ["one.vtk"]
    said = call("encode", "model", "photos", "--out", "codes", "--skip-existing")
    assert "left out: 1 files whose output exists" in said
    assert len(files("codes")) == 3 and Path("codes/one.vtk").read_bytes() == before


def test_tiles_keep_the_size_of_odd_images(place):
    sizes = {"p.png": (9, 8), "L.png": (7, 8), "RGBA.png": (1, 30), "I;16.png": (15, 16)}
    Path("odd").mkdir()
    for name, size in sizes.items():
        mode = {"p.png": "P"}.get(name, name.removesuffix(".png"))
        Image.new(mode, size).save(f"odd/{name}")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10), "red").save("odd/turned.jpg", exif=exif)
    said = call("encode", "model", "odd", "--tile", "--out", "codes", "--length", 3)
    assert "10x30 in 10 tiles)" in said and "7x8 in 1 tile)" in said
    call("decode", "model", "codes", "--out", "back")
    found = {name: Image.open(f"back/{name}").size for name in files("back")}
    expected = {name.replace("jpg", "png"): size for name, size in sizes.items()}
    assert found == {**expected, "turned.png": (10, 30)}
    tiles = codec().read_file("codes/p.vtk")
    assert (tiles.tiles.width, tiles.tiles.height, tiles.name) == (9, 8, "p.png")
    for words, told in (
        (["--target-psnr", 9], "--tile with --target-psnr"),
        (["--resize", "pad"], "--tile with --resize pad"),
    ):
        assert told in mistake("encode", "model", "odd", "--tile", *words)
    assert "leave out --size" in mistake("decode", "model", "codes/p.vtk", "--size", 8)


def test_images_are_cut_squeezed_or_padded(place):
    pixels = {}
    for how in ("crop", "stretch", "pad"):
        call("encode", "model", "photos/one.png", "--out", f"{how}.vtk", "--resize", how)
        pixels[how] = codec().read_file(f"{how}.vtk").tokens.indices
    model = Tokenizer.from_pretrained("model")
    for how, indices in pixels.items():
        expected = model.encode(model.preprocess("photos/one.png", how)).indices
        assert torch.equal(indices, expected)


def test_what_is_missing_is_said_in_one_line(place):
    said = mistake("encode", "photos/one.png")
    assert "photos/one.png: no model beside it" in said and "--model vistok-128" in said
    assert "no model beside it" in mistake("encode", "photos/one.png", "photos/a/two.png")
    assert "no model beside it" in mistake("encode", "photos")
    assert "--device gpu" in mistake("encode", "model", "photos", "--device", "gpu")
    words = ("encode", "model", "photos", "--names", "--max-bytes", 99)
    assert "--names with --max-bytes 99" in mistake(*words)
    assert "named twice" in mistake("encode", "model", "photos", "photos/one.png")
    result = CliRunner().invoke(main, ["encode", "--model", "model"])
    assert result.exit_code == 2 and "Missing argument" in result.stderr
