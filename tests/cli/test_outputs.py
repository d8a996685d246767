"""Names of output files, and that nothing of a user's is overwritten or followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.cli.media import write, write_clips, write_image
from vistok.cli.outputs import claim, output_names
from vistok.config.errors import InputError
from vistok.tokenizer import Tokenizer

COLORS = {"one/cat.png": "red", "two/cat.png": "lime", "one/cat.jpg": "blue"}


@pytest.fixture
def place(make_tokenizer, tmp_path, monkeypatch):
    """The current folder: a tokenizer `model`, images of one stem in two folders."""
    monkeypatch.chdir(tmp_path)
    make_tokenizer("vq").save_pretrained("model")
    for name, color in COLORS.items():
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), color).save(name)
    return tmp_path


def files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a/1.jpg"], ["1.vtk"]),
        (["a/1.jpg", "b/2.jpg"], ["1.vtk", "2.vtk"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.vtk", "b/1.vtk"]),
        (["x/a/1.jpg", "x/b/c/1.jpg", "x/2.jpg"], ["a/1.vtk", "b/c/1.vtk", "2.vtk"]),
        (["cat.png", "cat.jpg"], ["cat.png.vtk", "cat.jpg.vtk"]),
        (list(COLORS), ["one/cat.png.vtk", "two/cat.png.vtk", "one/cat.jpg.vtk"]),
        (["../a/1.jpg", "1.jpg"], ["a/1.vtk", "here/1.vtk"]),
        (["v1.2.png", "v1.3.png"], ["v1.2.vtk", "v1.3.vtk"]),
    ],
)
def test_every_output_has_a_name_of_its_own(tmp_path, monkeypatch, given, names):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert [str(name) for name in output_names(given, ".vtk")] == names


def test_a_file_that_is_named_twice_is_an_error(fails):
    for again in ("a/1.jpg", "./a/../a/1.jpg"):
        with fails(InputError, "named twice .as a/1.jpg too.; name each file once"):
            output_names(["a/1.jpg", again], ".vtk")


def test_images_of_one_name_are_encoded_apart_and_decoded_apart(place):
    said = call("encode", "model", *COLORS, "--out", "codes")
    tokens = {"one/cat.png.vtk", "two/cat.png.vtk", "one/cat.jpg.vtk"}
    assert files("codes") == tokens and "two/cat.png -> codes/two/cat.png.vtk" in said
    call("decode", "model", *(f"codes/{name}" for name in sorted(tokens)), "--out", "back")
    assert files("back") == {"one/cat.png.png", "two/cat.png.png", "one/cat.jpg.png"}
    call("encode", "model", "two/cat.png", "--out", "alone")
    assert Path("alone/cat.vtk").read_bytes() == Path("codes/two/cat.png.vtk").read_bytes()


def test_the_reported_images_of_one_stem(place, broken):
    images = broken.parent / "reported/same_stem"
    if not images.is_dir():
        pytest.skip(f"no {images}")
    given = sorted(path for path in images.rglob("*.*") if path.is_file())
    call("encode", "model", *given, "--out", "codes")
    assert files("codes") == {f"{path.relative_to(images)}.vtk" for path in given}
    for path in given:
        call("encode", "model", path, "--out", "alone", "--overwrite")
        alone = Path("alone", f"{path.stem}.vtk").read_bytes()
        assert Path("codes", f"{path.relative_to(images)}.vtk").read_bytes() == alone


def test_no_file_of_tokens_named_is_said(place):
    assert "no .vtk file named" in mistake("decode", "model", "sampling.steps=3")


def test_the_name_of_another_format_is_no_folder(place):
    assert "--out a.png: expected a folder, or a name that ends in .vtk" in mistake(
        "encode", "model", "one/cat.png", "--out", "a.png"
    )
    call("encode", "model", "one/cat.png", "--out", "a.vtk")
    for out, form in (("b.tiff", ()), ("b.png", ("--format", "webp"))):
        assert "expected a folder" in mistake("decode", "model", "a.vtk", "--out", out, *form)
        assert not Path(out).exists()
    Path("v.png").mkdir()  # a folder of the user's own is one
    call("encode", "model", "one/cat.png", "--out", "v.png")
    assert files("v.png") == {"cat.vtk"}


@pytest.mark.parametrize(("name", "side"), [("x.webp", 16384), ("x.jpg", 65501)])
def test_an_image_that_is_too_long_for_its_format_is_one_line(tmp_path, fails, name, side):
    with fails(InputError, f"an image of {side}x1; .* expected another format, such as png"):
        write_image(torch.zeros(3, 1, side, dtype=torch.uint8), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_it_is_asked_for(place):
    Path("cat.vtk").write_text("mine")
    for command in (
        ("encode", "model", "one/cat.png"),
        ("encode", "model", "one/cat.png", "two/cat.png", "--out", "new"),
    ):
        Path("new/two").mkdir(parents=True, exist_ok=True)
        Path("new/two/cat.vtk").write_text("mine")
        said = mistake(*command)
        assert "cat.vtk: exists already; give --overwrite to replace it, or another --out" in said
        assert Path("cat.vtk").read_text() == Path("new/two/cat.vtk").read_text() == "mine"
    assert files("new") == {"two/cat.vtk"}  # all are looked at before the first is written
    call("encode", "model", "one/cat.png", "--overwrite")
    photo = Path("one/cat.png").read_bytes()
    assert "one/cat.png: exists already" in mistake("decode", "model", "cat.vtk", "--out", "one")
    assert Path("one/cat.png").read_bytes() == photo
    Path("data.json").write_text("mine")
    from click.testing import CliRunner

    from vistok.cli import main

    result = CliRunner().invoke(main, ["check", "one", "--out", "data.json"])
    assert result.exit_code == 2 and "data.json: exists already" in result.stderr
    assert Path("data.json").read_text() == "mine"


def test_import_does_not_write_over_another_model(place):
    before = {name: Path("model", name).read_bytes() for name in files("model")}
    assert "model/config.json: exists already" in mistake("import", "titok-l32", "model")
    assert {name: Path("model", name).read_bytes() for name in files("model")} == before


def test_links_in_the_place_of_outputs_are_not_followed(place):
    Path("precious.txt").write_text("mine")
    for name in ("cat.vtk", "cat.png", "cat.gif", "dead.png"):
        Path(name).symlink_to("nowhere" if name == "dead.png" else "precious.txt")
    assert "cat.vtk: exists already" in mistake("encode", "model", "one/cat.png")
    call("encode", "model", "one/cat.png", "--overwrite")
    assert "cat.png: exists already" in mistake("decode", "model", "cat.vtk")
    call("decode", "model", "cat.vtk", "--overwrite")
    write_clips(torch.rand(1, 3, 2, 8, 8), Path("cat.gif"), 1, 8.0)
    copy = ("edit", "copy", "model", "one/cat.png", "two/cat.png", "--positions", "0")
    assert "dead.png: exists already" in mistake(*copy, "--out", "dead.png")
    assert Path("precious.txt").read_text() == "mine" and not Path("nowhere").exists()
    assert not any(Path(name).is_symlink() for name in ("cat.vtk", "cat.png", "cat.gif"))


def test_saved_models_do_not_follow_links_either(place, make_tokenizer):
    Path("precious.txt").write_text("mine")
    Path("other").mkdir()
    for name in ("config.json", "model.safetensors"):
        Path("other", name).symlink_to(Path("precious.txt").absolute())
    make_tokenizer("vq").save_pretrained("other")
    assert Path("precious.txt").read_text() == "mine"
    assert Tokenizer.from_pretrained("other").spec().vocab == (12,)


def test_a_place_that_cannot_be_written_is_told_before_the_work(place, monkeypatch):
    monkeypatch.setattr(Tokenizer, "encode", None)  # nothing is encoded
    Path("file").write_text("")
    assert "file: cannot be written" in mistake("encode", "model", "one/cat.png", "--out", "file")
    copy = ("edit", "copy", "model", "one/cat.png", "two/cat.png", "--positions", "0")
    assert "file/x: cannot be written" in mistake(*copy, "--out", "file/x/y.png")


def test_images_that_are_not_finite_are_not_written(tmp_path, fails):
    with fails(InputError, "x.png: not written, since the image has values that are not finite"):
        write(torch.full((1, 3, 4, 4), torch.nan), tmp_path / "x.png")
    with fails(InputError, "x.gif: 0.001 frames per second; expected 0.01..1000"):
        write_clips(torch.rand(1, 3, 2, 4, 4), tmp_path / "x.gif", 1, 1e-3)
    with fails(InputError, "is a folder"):
        claim([tmp_path], overwrite=True)
    assert os.listdir(tmp_path) == []


def test_tokens_are_decoded_by_the_tokenizer_that_made_them(place, make_tokenizer):
    call("encode", "model", "one/cat.png")
    other = make_tokenizer("vq")
    with torch.no_grad():
        next(other.decoder.parameters()).add_(1)
    other.save_pretrained("finetuned")  # its decoder alone
    call("decode", "finetuned", "cat.vtk", "--out", "back")
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1)
    other.save_pretrained("other")
    said = mistake("decode", "other", "cat.vtk", "--out", "elsewhere")
    assert "cat.vtk: made by another tokenizer (weights " in said and "than other" in said
    assert not Path("elsewhere").exists()


def test_no_file_of_tokens_hangs_or_fills_the_memory(place):
    os.mkfifo("pipe.vtk")
    assert "pipe.vtk: is a named pipe" in mistake("decode", "model", "pipe.vtk")
    Path("zero.vtk").symlink_to("/dev/zero")
    assert "zero.vtk: is a device" in mistake("decode", "model", "zero.vtk")
    with open("huge.vtk", "wb") as file:
        file.truncate(10**12)
    assert "huge.vtk: more than" in mistake("decode", "model", "huge.vtk")


def test_names_of_files_are_escaped_where_they_are_shown(place):
    name = "ca\x1b[2Jt.png"
    Image.new("RGB", (8, 8), "red").save(name)
    assert r"ca\x1b[2Jt.png -> ca\x1b[2Jt.vtk" in call("encode", "model", name)
    Path("\x1b[31mred").mkdir()
    assert r"\x1b[31mred" in mistake("info", "\x1b[31mred")
