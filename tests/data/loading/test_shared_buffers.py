"""The way of pixels from workers: nothing that was handed out ever changes."""

import numpy as np
import pytest
import torch

from vistok.config.registry import build
from vistok.data import EvalLoader, FolderConfig, Order, PhotosConfig, TrainLoader, to_device
from vistok.data.loading.shared_buffers import Place, SharedBuffers, _Kept


@pytest.fixture
def folder(tmp_path, make_image):
    for i in range(17):
        make_image(12, 12, i).save(tmp_path / f"{i:02}.png")
    return build(FolderConfig(path=str(tmp_path), size=12)).open("train")


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_batches_that_are_kept_stay_as_they_were(folder, prefetch):
    """Far more batches than buffers, all held at the end, and a slow reader."""
    order = Order(17, 4, seed=1)
    expected = list(TrainLoader(folder, order, steps=60))
    loader = TrainLoader(folder, order, steps=60, workers=2, prefetch=prefetch)
    held = list(loader)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(expected, held, strict=True))
    assert len({batch.pixels.data_ptr() for batch in held}) == 60
    for one, two in zip(expected, loader, strict=True):  # again, and each is let go of
        assert torch.equal(one.pixels, two.pixels)


def test_pixels_come_through_buffers_and_two_iterations_do_not_meet(folder, monkeypatch):
    taken, take = [], SharedBuffers.take
    monkeypatch.setattr(SharedBuffers, "take", lambda *a: taken.append(a[1].buffer) or take(*a))
    loader = EvalLoader(folder, 5, workers=2)
    for one, two in zip(loader, loader, strict=True):
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.index, two.index)
        expected = torch.stack([folder[int(i)].pixels for i in one.index])
        assert torch.equal(one.pixels, expected)
    assert len(taken) == 8


def test_a_buffer_that_was_written_again_is_an_error():
    buffers = SharedBuffers(workers=1, prefetch=1, size=6)
    buffers._numbers[0] = 3
    with pytest.raises(RuntimeError, match="buffer 0 holds batch 3; expected 0"):
        buffers.take(Place(0, 0, (2, 3)))
    assert buffers.put([torch.zeros(3, dtype=torch.uint8)]) is None  # not in a worker


def test_kept_memory_is_given_out_once_at_a_time():
    kept = _Kept()
    first = kept.empty((2, 3))
    view, place = first[1:], first.data_ptr()
    del first
    second = kept.empty((2, 3))  # a view of the first one still lives
    assert second.data_ptr() != place and view.data_ptr() == place + 3
    del view
    assert kept.empty((6,)).data_ptr() == place
    many = [kept.empty((4,)) for _ in range(9)]
    assert len({tensor.data_ptr() for tensor in many}) == 9 and len(kept._arrays) == 4
    assert isinstance(kept._arrays[0], np.ndarray)


@pytest.mark.parametrize("frames", [1, 5])
def test_clips_travel_through_buffers_with_their_rate(frames, monkeypatch):
    """Buffers are sized by all frames of a clip, and the frame rate comes along."""
    taken, take = [], SharedBuffers.take
    monkeypatch.setattr(SharedBuffers, "take", lambda *a: taken.append(a[1].shape) or take(*a))
    data = build(PhotosConfig(size=8, frames=frames, count=12)).open("train")
    order = Order(12, 4, seed=1)
    for one, two in zip(
        TrainLoader(data, order, steps=5), TrainLoader(data, order, steps=5, workers=2), strict=True
    ):
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.fps, two.fps)
        assert two.fps.tolist() == [8.0] * 4 and to_device(two, "cpu").fps.tolist() == [8.0] * 4
    assert taken == [(4, 3, frames, 8, 8)] * 5
