"""Images are clips of one frame for causal tokenizers of videos: encode, decode, preprocess."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.support.films import film
from tests.test_causal import built
from vistok.cli import main
from vistok.core.errors import InputError


def run(*words) -> str:
    found = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A causal tokenizer, and a folder with an image and a video."""
    monkeypatch.chdir(tmp_path)
    built().save_pretrained("model")
    (tmp_path / "mixed").mkdir()
    values = np.random.default_rng(0).integers(0, 255, (12, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save("mixed/one.png")
    film(tmp_path / "mixed/two.mp4", count=9, size=(16, 16))
    return tmp_path


def test_a_folder_of_images_and_videos_is_encoded(place):
    said = run("encode", "model", "mixed", "--out", "codes")
    assert "one.vtk" in said and "an image" in said and "two.vtk" in said
    assert "frames                   1" in run("info", "codes/one.vtk")
    run("decode", "model", "codes", "--out", "images", "--format", "png")
    assert Image.open("images/one.png").size == (8, 8)
    assert Image.open("images/two.png").width > 9 * 8  # a row of frames
    run("decode", "model", "codes/one.vtk", "--out", "one.gif")
    assert Image.open("one.gif").n_frames == 1
    run("encode", "model", "mixed", "--whole", "--out", "whole")
    assert (place / "whole/one.vtk").read_bytes() == (place / "codes/one.vtk").read_bytes()


def test_images_become_clips_of_one_frame(place):
    tokenizer = built()
    image = Image.open("mixed/one.png")
    pixels = tokenizer.preprocess(["mixed/one.png", image, np.asarray(image)])
    assert pixels.shape == (3, 3, 1, 8, 8) and torch.equal(pixels[0], pixels[2])
    assert tokenizer.preprocess("mixed/two.mp4").shape == (1, 3, 9, 8, 8)
    with pytest.raises(InputError, match="images and clips in one batch"):
        tokenizer.preprocess(["mixed/one.png", "mixed/two.mp4"])
