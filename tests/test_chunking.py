"""Long clips in windows: places, padding, blending, memory, and files of them."""

from __future__ import annotations

import gc
import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok import chunking
from vistok.chunking import Chunking
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.data import PhotosConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens.codec import Codec
from vistok.tokens.labels import Chunked, Label


@pytest.fixture
def config(tree):
    config = tree()
    config["frames"] = 4
    for part in ("encoder", "decoder"):
        config[part]["patches"] = {**config[part].get("patches", {}), "frames": 2}
    return config


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, config)).eval()


class Exact:
    """Stands for a tokenizer whose windows come back as they are, each with an error of its own."""

    shape = SimpleNamespace(is_clip=True, frames=8)
    config = SimpleNamespace(chunks=None)

    def __init__(self, windows, error):
        self.windows, self.error = windows, error

    def decode(self, rows, condition, *, seed, index, sampling):
        signs = torch.tensor([1.0 if n % 2 else -1.0 for n in index])
        return torch.stack([self.windows[n] for n in index]) + self.error * signs.view(
            -1, 1, 1, 1, 1
        )


class Rows:
    """As many tokens as windows, without content."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def select(self, rows):
        return rows


def moving(frames, size=16):
    """Frames [3, H, W] of a wave that moves."""
    x = torch.arange(size) / size
    for t in range(frames):
        yield (0.5 + 0.4 * torch.sin(6.3 * (x + t / 11))).expand(3, size, size)


def test_counts_that_work_and_padding():
    assert [len(Chunking(f, 17, 1)) for f in (1, 17, 18, 33, 34)] == [1, 1, 2, 2, 3]
    Chunking(33, 17, 1).check_whole()
    with pytest.raises(InputError, match=r"34 frames; .* take 17 \+ 16 k \(33 or 49\): give --pad"):
        Chunking(34, 17, 1).check_whole()
    with pytest.raises(InputError, match=r"overlap=9: expected 0\.\.8"):
        Chunking(34, 17, 9)
    values = [torch.full((3, 1, 1), float(n)) for n in range(6)]
    shown = lambda pad: [w[0, :, 0, 0].tolist() for w in Chunking(6, 4, 1).cut(values, pad)]
    assert shown("repeat") == [[0, 1, 2, 3], [3, 4, 5, 5]]
    assert shown("reflect") == [[0, 1, 2, 3], [3, 4, 5, 4]]
    with pytest.raises(InputError, match="5 frames came; expected 6"):
        list(Chunking(6, 4, 1).cut(values[:5], "repeat"))


def test_windows_that_are_exact_give_the_clip_back_and_no_seam():
    clip = torch.stack(list(moving(50)), dim=1)
    for overlap in (0, 1, 2, 4):
        places = Chunking(50, 8, overlap)
        windows = list(places.cut(clip.unbind(1), "repeat"))
        exact = chunking.decode(Exact(windows, 0.0), Rows(len(places)), places)
        torch.testing.assert_close(torch.stack(list(exact), dim=1), clip)
        # Errors of other signs on both sides of a seam: mixing never makes them larger.
        noisy = chunking.decode(Exact(windows, 0.05), Rows(len(places)), places)
        error = (torch.stack(list(noisy), dim=1) - clip).square().mean((0, 2, 3))
        psnr = -10 * torch.log10(error.clamp(min=1e-12))
        seams = [
            s
            for n in range(1, len(places))
            for s in range(n * places.step, n * places.step + max(overlap, 1))
            if s < 50
        ]
        rest = [n for n in range(50) if n not in seams]
        assert psnr[seams].min() > psnr[rest].mean() - 0.5


def test_windows_are_those_of_a_clip_alone(model):
    frames = list(moving(10, 8))
    places = Chunking.of(model, 10, 1)
    tokens = chunking.encode(model, frames, places, batch=2)
    alone = model.encode(torch.stack(frames[3:7], dim=1)[None])
    assert torch.equal(tokens.indices[1], alone.indices[0]) and len(tokens) == 3
    back = list(chunking.decode(model, tokens, places, batch=2))
    assert len(back) == 10 and torch.allclose(back[4], model.decode(alone)[0, :, 1], atol=1e-6)


def test_memory_is_flat_in_the_frames(model):
    alive, most = weakref.WeakSet(), 0

    def frames():
        nonlocal most
        for frame in moving(1000, 8):
            frame = frame.clone()
            alive.add(frame)
            most = max(most, len(alive))
            yield frame

    places = Chunking.of(model, 1000, 0)
    tokens = chunking.encode(model, frames(), places, batch=50)
    gc.collect()
    assert most <= 8 and len(tokens) == 250
    count = sum(1 for _ in chunking.decode(model, tokens, places, batch=50))
    assert count == 1000


def test_labels_of_windows():
    label = Label("a.mp4", chunks=Chunked(33, 1, 2))
    assert Label.read(label.write() + b"rest") == (label, b"rest")
    with pytest.raises(InputError, match="9 windows of a clip of 3 frames"):
        Chunked(3, 0, 9)


def test_whole_videos_on_the_command_line(config, tmp_path, monkeypatch):
    import av

    monkeypatch.chdir(tmp_path)
    config["chunks"] = {"overlap": 1}
    model = Tokenizer(validate(TokenizerConfig, config))
    model.save_pretrained("model")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)) for _ in range(9)]
    images[0].save("nine.gif", save_all=True, append_images=images[1:], duration=100)
    assert "nine.gif: 9 frames; this tokenizer's windows take 4 + 3 k (7 or 10)" in mistake(
        "encode", "model", "nine.gif"
    )
    said = call("encode", "model", "nine.gif", "--pad", "repeat")
    assert "9 frames in 3 windows" in said
    record = Codec(model.spec(), model.codes_sha256()).read_file("nine.vtk")
    assert record.chunks == Chunked(9, 1, 3) and record.tokens.fps == 10
    assert "9 frames of 8x8" in call("decode", "model", "nine.vtk", "--out", "nine.mp4")
    with av.open("nine.mp4") as file:
        assert len(list(file.decode(video=0))) == 9
    assert "expected --format mp4" in mistake("decode", "model", "nine.vtk", "--format", "png")
    said = mistake("encode", "model", "nine.gif", "--target-psnr", "20")
    assert "--target-psnr: whole videos" in said and "give --length" in said


def test_windows_must_fit_the_tokenizer(config):
    config["chunks"] = {"frames": 5}
    with pytest.raises(ConfigError, match=r"chunks\.frames=5 with frames=4"):
        validate(TokenizerConfig, config)
    config["chunks"] = {"frames": 4, "overlap": 3}
    with pytest.raises(ConfigError, match=r"chunks.overlap=3: expected 0\.\.2"):
        validate(TokenizerConfig, config)


# -- a tokenizer that has learned something ------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A ViT tokenizer of clips of 8 frames, trained for a few seconds on moving photos."""
    torch.manual_seed(0)
    vit = {"kind": "vit", "transformer": {"width": 48, "depth": 2, "heads": 4}}
    vit["patches"] = {"size": 4, "frames": 4}
    tree = {"image_size": 16, "frames": 8, "quantizer": {"kind": "fsq", "levels": [8, 8, 8]}}
    tree |= {"encoder": {**vit, "latents": {"count": 24}}, "decoder": vit}
    tokenizer = Tokenizer(validate(TokenizerConfig, tree))
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 3e-3)
    data = photos(frames=8, count=64)
    pixels = torch.stack([data[n].pixels for n in range(64)]).float() / 255
    for step in range(150):
        target = pixels[torch.arange(8) + 8 * step % 64]
        quantized = tokenizer.quantize(tokenizer.latents(target))
        estimate = tokenizer.reconstruct(quantized.values).estimate
        loss = (tokenizer.output_space.inverse(estimate) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tokenizer.eval()


def photos(**values):
    config = PhotosConfig(size=16, val_count=1, **values)
    return build(config).open("train")


@pytest.mark.parametrize("overlap", [2, 4])
def test_no_seams_where_windows_of_a_trained_tokenizer_meet(trained, overlap):
    """PSNR of the frames at the borders is within 0.5 dB of the others'."""
    count = 8 + 4 * (8 - overlap)
    data, errors, gray = photos(frames=count, count=12), torch.zeros(count), 0.0
    places = Chunking(count, 8, overlap)
    for number in range(12):
        frames = data[number].pixels.float().unbind(1)
        frames = [frame / 255 for frame in frames]
        tokens = chunking.encode(trained, frames, places)
        back = list(chunking.decode(trained, tokens, places))
        gray += float(data[number].pixels.float().div(255).var()) / 12
        errors += torch.stack([(a - b).square().mean() for a, b in zip(back, frames, strict=True)])
    psnr = -10 * (errors / 12).log10()
    borders = torch.zeros(count, dtype=torch.bool)
    for start in range(places.step, count - overlap, places.step):
        borders[start - 1 : start + overlap + 1] = True  # and a frame on either side
    edges = (0, count - 1)  # of the clip itself: no border
    inner = ~borders
    inner[list(edges)] = False
    assert psnr.mean() > -10 * math.log10(gray) + 3  # it has learned more than to be gray
    assert psnr[borders].mean() > psnr[inner].mean() - 0.5, psnr
