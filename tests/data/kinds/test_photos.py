import pickle
import time

import pytest
import torch

from vistok.config.registry import build
from vistok.data import DataError, Order, PhotosConfig, TrainLoader
from vistok.data.kinds import photos


@pytest.fixture(scope="module")
def data():
    return build(PhotosConfig(seed=3)).open("train")


def test_sizes_and_record(data):
    assert len(data) == 1_000_000 and data.size == (32, 32) and not data.flip
    assert data.classes == (
        "astronaut", "chelsea", "coffee", "hubble_deep_field", "ihc", "retina", "rocket",
    )  # fmt: skip
    assert data[999_999].pixels.shape == (3, 32, 32) and data[0].pixels.dtype == torch.uint8
    val = build(PhotosConfig(seed=3)).open("val")
    assert len(val) == 1024 and val.record()["manifest"] != data.record()["manifest"]


def test_a_view_depends_on_its_key_alone(data):
    again = pickle.loads(pickle.dumps(build(PhotosConfig(seed=3)).open("train")))
    torch.manual_seed(1)
    for index in (17, 4, 123_456):
        one, two = data.sample(index, epoch=0, seed=0), again.sample(index, epoch=5, seed=9)
        assert torch.equal(one.pixels, two.pixels) and one.label == two.label
    others = (
        build(PhotosConfig(seed=4)).open("train"),
        build(PhotosConfig(seed=3)).open("val"),
    )
    for other in others:
        assert not torch.equal(other[4].pixels, data[4].pixels)


def test_train_and_val_views_differ(data):
    val = build(PhotosConfig(seed=3)).open("val")
    views = [{bytes(d[i].pixels.numpy()) for i in range(300)} for d in (data, val)]
    assert len(views[0]) == len(views[1]) == 300 and not views[0] & views[1]


def test_photographs_are_uniform_and_mirrored(data):
    labels = torch.tensor([data[i].label for i in range(1400)]).bincount(minlength=7)
    assert labels.min() > 140 and labels.max() < 260


def test_windows_are_45_to_100_percent(data, monkeypatch):
    boxes = []
    resize = photos._resize
    monkeypatch.setattr(
        photos,
        "_resize",
        lambda level, size, box: boxes.append((level, box)) or resize(level, size, box),
    )
    for index in range(600):
        data[index]
    shares = torch.tensor([(b[2] - b[0]) / min(level.size) for level, b in boxes])
    assert 0.44 < shares.min() < 0.47 and 0.98 < shares.max() <= 1.01
    assert min(b[2] - b[0] for _, b in boxes) >= 64  # never from a level that is too small
    assert all(b[0] >= 0 and b[2] <= level.width and b[3] <= level.height for level, b in boxes)


def test_views_are_larger_than_a_small_photograph_too():
    data = build(PhotosConfig(size=256, count=20)).open("train")
    assert all(sample.pixels.shape == (3, 256, 256) for sample in data)


def test_a_view_is_close_to_the_slow_way(data):
    """Against cutting the window from the whole photograph, without a pyramid."""
    from PIL import Image

    rng = data._rng
    for index in range(20):
        which, share, x, y, mirrored = rng.generator(index).random(5)
        whole = data._pyramids[int(which * 7)][1]
        side = min(whole.size) * (0.45 + 0.55 * share)
        left, top = (whole.width - side) * x, (whole.height - side) * y
        box = (left, top, left + side, top + side)
        view = whole.resize((32, 32), Image.Resampling.BICUBIC, box=box)
        expected = photos.images.to_tensor(view)
        expected = expected.flip(-1) if mirrored < 0.5 else expected
        difference = (expected.float() - data[index].pixels.float()).abs().mean()
        assert difference < 4, index


def test_missing_photographs_say_what_to_install(monkeypatch):
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install 'scikit-image"):
        build(PhotosConfig()).open("train")


def test_speed(data):
    """Far below the 4000 views a second that one free core must reach: a shared machine's floor."""
    started = time.perf_counter()
    for index in range(500):
        data[index]
    assert 500 / (time.perf_counter() - started) > 800


def test_photographs_pan_and_zoom(monkeypatch):
    boxes, resize = [], photos._resize
    monkeypatch.setattr(
        photos,
        "_resize",
        lambda level, size, box: boxes.append((level, box)) or resize(level, size, box),
    )
    moving = build(PhotosConfig(seed=3, frames=5)).open("train")
    still = build(PhotosConfig(seed=3)).open("train")
    assert (moving.frames, still.frames) == (5, None)
    for index in range(12):
        boxes.clear()
        clip = moving[index]
        assert clip.pixels.shape == (3, 5, 32, 32) and clip.pixels.dtype == torch.uint8
        places = torch.tensor([box for _, box in boxes])
        assert len({id(level) for level, _ in boxes}) == 1  # no frame softer than its neighbor
        steps = places.diff(dim=0)
        assert torch.allclose(steps, steps[:1].expand(4, 4), atol=1e-3)
        assert steps[0, :2].abs().sum() > 0 and (places >= 0).all()
        image = still[index]
        assert clip.label == image.label and clip.name == image.name
        away = (clip.pixels[:, 0].float() - image.pixels.float()).abs().mean()
        assert away < 4 and not torch.equal(clip.pixels[:, 0], clip.pixels[:, 4])
        assert (clip.fps, image.fps) == (8.0, None)
    record, plain = moving.record(), still.record()
    assert (record["frames"], record["fps"]) == (5, 8.0) and "frames" not in plain
    assert record["manifest"] != plain["manifest"]
    few = build(PhotosConfig(seed=3, frames=5, count=8)).open("train")
    batch = next(iter(TrainLoader(few, Order(8, 4, 0), steps=1)))
    assert batch.pixels.shape == (4, 3, 5, 32, 32) and batch.fps.tolist() == [8.0] * 4


def test_clips_move_less():
    whole, slow, still = (
        build(PhotosConfig(seed=3, frames=4, motion=share)).open("val") for share in (1, 0.25, 0)
    )
    for index in range(4):
        clips = [one[index].pixels.float() for one in (whole, slow, still)]
        assert (clips[0][:, 0] - clips[1][:, 0]).abs().mean() < 8  # the same first view
        moved = [(clip[:, -1] - clip[:, 0]).abs().mean() for clip in clips]
        assert moved[0] > moved[1] > moved[2] == 0
    assert slow.record()["motion"].endswith("0.25 of the way")
    assert len({one.record()["manifest"] for one in (whole, slow, still)}) == 3
    unchanged = build(PhotosConfig(seed=3, frames=4)).open("val").record()
    assert unchanged == whole.record()
