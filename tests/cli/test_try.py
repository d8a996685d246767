"""`vistok try`: a strip and a page of an image at every length, beside JPEG and WebP."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.cli.try_measure import SmallFiles, lengths_of
from vistok.core.errors import InputError
from vistok.tokens import TokenSpec


@pytest.fixture
def place(make_tokenizer, tmp_path, monkeypatch):
    """The current folder: a tokenizer `model` of 8x8 pixels, an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("no browser was asked for"))
    make_tokenizer(missing="drop").save_pretrained("model")
    Image.linear_gradient("L").resize((60, 40)).save("ca<b>t.png")
    return tmp_path


def test_a_strip_a_page_and_a_table(place):
    said = call("try", "ca<b>t.png", "--model", "model", "--no-open")
    assert "ca<b>t.png: 60x40 pixels, center-cropped and resized to 8x8, by model" in said
    assert re.search(r"^ +4 +21 bytes +[\d.]+ dB +smallest: \d+ bytes", said, re.M)
    strip, page = Image.open("vistok-try.png"), Path("vistok-try.html").read_text("utf-8")
    assert strip.width > 900 and strip.height > 500
    assert page.count("data:image/png") == 1 + 3 and "<script" not in page
    assert "http" not in page and "<b>t" not in page and "ca&lt;b&gt;t.png" in page
    assert "no JPEG file is this small" in page and "prefers-color-scheme: dark" in page
    call("try", "ca<b>t.png", "--model", "model", "--no-open")  # its own files are replaced
    words = ("try", "ca<b>t.png", "--model", "model", "--no-open")
    for mine in ("mine", "what vistok try said"):
        Path("vistok-try.html").write_text(mine, "utf-8")
        assert "vistok-try.html: exists already" in mistake(*words)
        assert Path("vistok-try.html").read_text("utf-8") == mine


def test_larger_images_whole_and_several_on_one_page(place):
    Image.new("RGB", (20, 9), "red").save("red.png")
    words = ["ca<b>t.png", "red.png", "--tile", "--model", "model", "--out", "x.png"]
    said = call("try", *words, "--no-open")
    assert "60x40 pixels in 54 tiles of 8x8" in said and "20x9 pixels in 6 tiles of 8x8" in said
    assert Path("x.html").read_text("utf-8").count("<section>") == 3
    assert re.search(r"^ +216 +1[\d,]+ bytes", said, re.M)  # 54 tiles of 4 tokens


def test_the_built_in_image_opens_where_there_is_a_display(place, monkeypatch):
    seen = []
    monkeypatch.setattr("webbrowser.open", lambda address: seen.append(address) or True)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    said = call("try", "--model", "model")
    assert "chelsea: A photograph of scikit-image" in said and "opened in a browser" in said
    assert seen == [(place / "vistok-try.html").resolve().as_uri()]
    monkeypatch.setenv("CI", "1")
    assert "; open vistok-try.html in a browser" in call("try", "--model", "model")
    assert len(seen) == 1


def test_mistakes_are_one_line(place, tree):
    from vistok.config import validate
    from vistok.tokenizer import Tokenizer, TokenizerConfig

    Path("text.png").write_text("none")
    assert "text.png: not an image" in mistake("try", "text.png", "--model", "model")
    assert "no such file" in mistake("try", "gone.png", "--model", "model").lower()
    assert "expected a name that ends in .png" in mistake("try", "--out", "x.jpg")
    config = tree()
    config["frames"] = 4
    for part in ("encoder", "decoder"):
        config[part]["patches"] = {**config[part].get("patches", {}), "frames": 2}
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained("clips")
    assert "clips: takes clips of 4 frames" in mistake("try", "ca<b>t.png", "--model", "clips")
    assert not Path("vistok-try.png").exists()


def test_other_codecs_take_no_more_bytes_and_the_best_that_fits(fails):
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB").rotate(30)
    for name in ("JPEG", "WebP"):
        files = SmallFiles(image, name)
        sizes = [files.at_most(limit) for limit in (10, 600, 900, 5000)]
        assert sizes[0].missing and 10 < sizes[0].bytes < 500
        assert [one.bytes <= 5000 for one in sizes] == [True] * 4
        psnr = [one.psnr for one in sizes[1:]]
        assert psnr == sorted(psnr) and sizes[1].bytes <= 600
        assert sizes[1].image.size == (64, 64)
        plain = io.BytesIO()
        image.save(plain, name, quality=100)
        assert files.at_most(len(plain.getvalue()) + 10**4).psnr > 35
    assert SmallFiles(Image.new("RGB", (20_000, 1)), "WebP").at_most(999).image.width == 20_000
    with fails(InputError, "300000x1 is too long for WebP"):
        SmallFiles(Image.new("RGB", (300_000, 1)), "WebP")


def test_lengths_from_the_shortest_to_all():
    spec = TokenSpec(blocks=((256,),), vocab=(16,), prefix="token")
    assert lengths_of(spec) == [1, 8, 16, 32, 64, 128, 256]
    assert lengths_of(TokenSpec(blocks=((4,),), vocab=(16,))) == [4]
    scales = TokenSpec(blocks=((1, 1), (2, 2)), vocab=(16,), prefix="block")
    assert lengths_of(scales) == [1, 2]
