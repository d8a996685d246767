"""`vistok encode` as a codec: lengths by quality and bytes, frequencies, files of others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.config import validate
from vistok.data.token_cache_writer import TokenCacheWriter
from vistok.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture
def place(tree, tmp_path, monkeypatch):
    """The current folder: a tokenizer `model` of 8 tokens of 12 bits, two images."""
    monkeypatch.chdir(tmp_path)
    config = tree(missing="drop", latents={"count": 8})
    config |= {"quantizer": {"kind": "fsq", "levels": [8, 8, 8, 8]}}
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained("model")
    Image.new("RGB", (8, 8), "gray").save("flat.png")
    noise = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.byte().numpy()).save("noise.png")
    return tmp_path


def test_one_file_to_one_file(place):
    said = call("encode", "model", "flat.png", "--out", "small.vtk", "--length", 2)
    assert "flat.png -> small.vtk (22 bytes)" in said
    call("decode", "model", "small.vtk", "--out", "back.png")
    assert Image.open("back.png").size == (8, 8)
    assert "small.vtk: exists already" in mistake(
        "encode", "model", "flat.png", "--out", "small.vtk"
    )
    both = ("encode", "model", "flat.png", "noise.png", "--out", "x.vtk")
    assert "--out x.vtk: one file for 2; expected a folder" in mistake(*both)


def test_lengths_by_bytes_and_quality(place):
    for cap in (21, 22, 27, 40):
        call("encode", "model", "flat.png", "noise.png", "--max-bytes", cap, "--overwrite")
        assert max(len(Path(f"{n}.vtk").read_bytes()) for n in ("flat", "noise")) <= cap
    assert "flat.png: max_bytes=20: even the shortest" in mistake(
        "encode", "model", "flat.png", "--max-bytes", 20, "--overwrite"
    )
    said = call("encode", "model", "flat.png", "noise.png", "--target-psnr", 3, "--overwrite")
    assert "flat.png -> flat.vtk (21 bytes, length 1, " in said and " dB)" in said
    words = ("encode", "model", "flat.png", "--target-psnr", 90, "--max-perceptual", 1e-9)
    said = call(*words, "--max-bytes", 24, "--overwrite")
    asked = "target_psnr=90 and max_perceptual=1e-09 within max_bytes=24 is not met"
    assert f"flat.png: {asked}: " in said and " at length " in said
    assert len(Path("flat.vtk").read_bytes()) <= 24  # written all the same
    assert "--length 2 with --max-bytes" in mistake(
        "encode", "model", "flat.png", "--length", 2, "--max-bytes", 30
    )
    assert "max_bytes=0: expected a number above 0" in mistake(
        "encode", "model", "flat.png", "--max-bytes", 0
    )


def test_frequencies_of_a_cache(place, make_tokenizer, monkeypatch):
    pytest.importorskip("constriction")
    model = Tokenizer.from_pretrained("model")
    tokens = model.encode(torch.rand(300, 3, 8, 8))
    about = {"source": {}, "tokenizer": "model", "sha256": "0"}
    about["codes_sha256"] = model.codes_sha256()
    with TokenCacheWriter("cache", model.spec(), 300, **about) as writer:
        writer.write(tokens)
    said = call("frequencies", "model", "cache")
    assert "model/frequencies.safetensors: frequencies " in said and "300 images" in said
    assert "exists already" in mistake("frequencies", "model", "cache")
    call("frequencies", "model", "cache", "--out", "same.safetensors")
    call("info", "model")  # a model with a table is still a model
    call("encode", "model", "flat.png", "noise.png")
    whole = {name: Path(f"{name}.vtk").read_bytes() for name in ("flat", "noise")}
    call("decode", "model", "flat.vtk", "noise.vtk", "--out", "back")
    table = Path("model/frequencies.safetensors")
    table.rename("away.safetensors")
    call("encode", "model", "flat.png", "noise.png", "--overwrite")
    packed = {name: Path(f"{name}.vtk").read_bytes() for name in whole}
    assert all(len(whole[name]) <= len(packed[name]) for name in whole)
    call("decode", "model", "flat.vtk", "noise.vtk", "--out", "again")
    for name in whole:
        assert Path(f"back/{name}.png").read_bytes() == Path(f"again/{name}.png").read_bytes()
    coded = Path("coded.vtk")
    coded.write_bytes(next(data for data in whole.values() if data[3] & 15))
    assert "coded.vtk: its codes were written with the frequencies" in mistake(
        "decode", "model", "coded.vtk"
    )
    call("decode", "model", "coded.vtk", "--frequencies", "away.safetensors")
    make_tokenizer("fsq", missing="drop", latents={"count": 8}).save_pretrained("other")
    assert "cache: tokens of another tokenizer" in mistake("frequencies", "other", "cache")
    with_other = ("encode", "other", "flat.png", "--frequencies", "away.safetensors")
    assert "away.safetensors: frequencies of the codes of another" in mistake(*with_other)
    Path("text.safetensors").write_text("none")
    bad = ("encode", "model", "flat.png", "--frequencies", "text.safetensors")
    assert "text.safetensors: no frequency table" in mistake(*bad)
    # Without the range coder files are packed, which is said.
    Path("away.safetensors").rename(table)
    monkeypatch.setitem(sys.modules, "constriction", None)
    monkeypatch.setattr("vistok.tokens.entropy_coding.coder_version", lambda: None)
    said = call("encode", "model", "flat.png", "--overwrite")
    assert "only packed: pip install 'vistok[coding]'" in said
    assert Path("flat.vtk").read_bytes() == packed["flat"]
    assert "pip install 'vistok[coding]'" in mistake("decode", "model", "coded.vtk", "--out", "no")
