"""Too little shared memory is said in one line, before the first batch where that can be."""

import os
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from tests.support.tars import png, write_tar
from vistok.config.registry import build
from vistok.data import (
    CachedTokensConfig,
    DataError,
    EvalLoader,
    Order,
    PhotosConfig,
    StreamLoader,
    TokenCacheWriter,
    TrainLoader,
    WebDatasetConfig,
)
from vistok.data.check.run import scan
from vistok.data.loading import collate, shared_memory
from vistok.data.loading.shared_memory import batch_bytes, check_room, told_as_shortage
from vistok.tokens import Tokens, TokenSpec
from vistok.train.dataloader import check_shared_memory

REMEDY = ("workers=0 needs none of it", "--shm-size")


@pytest.fixture
def left(monkeypatch):
    """left(size): /dev/shm has so many bytes left."""

    def make(size: int) -> None:
        place = SimpleNamespace(f_bavail=size, f_frsize=1)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: place)

    return make


@pytest.fixture
def photos():
    return build(PhotosConfig(size=32, count=64, val_count=64)).open("train")


@pytest.fixture
def tokens(tmp_path):
    """Twelve samples of 50 x 2 codes of two bytes each."""
    spec = TokenSpec(blocks=((50,),), vocab=(4096, 3))
    facts = {"source": {}, "tokenizer": "tiny", "sha256": "1", "classes": ()}
    with TokenCacheWriter(tmp_path / "cache", spec, 12, **facts) as writer:
        writer.write(Tokens.of(spec, torch.zeros(12, 50, 2, dtype=torch.int64)), None)
    return build(CachedTokensConfig(path=str(tmp_path / "cache"))).open("train")


@pytest.fixture
def shard(tmp_path, make_image):
    return write_tar(tmp_path / "a.tar", [(f"{i}.png", png(make_image, i)) for i in range(6)])


def test_the_room_of_each_kind_is_known(photos, tokens, shard):
    clips = build(PhotosConfig(size=32, frames=5)).open("train")
    assert batch_bytes(photos, 4) == 4 * 3 * 32 * 32
    assert batch_bytes(clips, 4) == 4 * 3 * 5 * 32 * 32
    assert batch_bytes(tokens, 4) == 4 * 50 * 2 * 2
    stream = build(WebDatasetConfig(train=str(shard), size=8)).open("train")
    assert batch_bytes(stream, 4) == 4 * 3 * 8 * 8


def test_it_is_refused_before_the_first_batch(photos, tokens, shard, left, fails):
    stream = build(WebDatasetConfig(train=str(shard), size=8, lanes=1)).open("train")
    cases = {
        # Two workers with four batches each.
        2 * 4 * batch_bytes(photos, 16): lambda workers: TrainLoader(
            photos, Order(64, 16, 0), steps=2, workers=workers
        ),
        2 * 4 * batch_bytes(photos, 8): lambda workers: EvalLoader(photos, 8, workers=workers),
        2 * 4 * batch_bytes(tokens, 6): lambda workers: EvalLoader(tokens, 6, workers=workers),
    }
    for size, loader in cases.items():
        left(size)
        assert len(list(loader(2))) >= 2
        left(size - 1)
        needed = f"{size / 2**20:.1f} MB: workers=1 fits"
        with fails(DataError, "/dev/shm", f"workers=2 need {needed}", *REMEDY):
            next(iter(loader(2)))
        left(0)
        assert len(list(loader(0))) >= 2  # needs none of it
    left(4 * batch_bytes(stream, 2) - 1)
    with fails(DataError, "/dev/shm", *REMEDY):
        StreamLoader(stream, 2, 0, steps=1, workers=1)


def test_validation_counts_before_the_first_step(photos, left, fails, monkeypatch):
    config = SimpleNamespace(batch_size=8, validate_batch=32, workers=3)
    needed = 3 * 4 * (batch_bytes(photos, 8) + batch_bytes(photos, 32))
    left(needed)
    accelerator = Accelerator(cpu=True)
    check_shared_memory(config, photos, photos, accelerator)
    left(needed - 1)
    with fails(DataError, "workers=3 need", "workers=2 fits"):
        check_shared_memory(config, photos, photos, accelerator)
    left(needed)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # processes share it
    with fails(DataError, "workers=3 need", "workers=1 fits"):
        check_shared_memory(config, photos, photos, accelerator)


def test_locks_of_workers_lie_in_it_too(tokens, monkeypatch, fails):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_memory.multiprocessing, "Lock", full)
    assert len(list(EvalLoader(tokens, 6, workers=0))) == 2
    for read in (EvalLoader(tokens, 6, workers=1), scan(tokens, 6, workers=1)):
        with fails(DataError, "/dev/shm: .*No space left on device", *REMEDY):
            list(read)


def test_systems_without_it_are_not_asked(monkeypatch):
    def none(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(shared_memory.os, "statvfs", none)
    check_room(2**60, 1)


@pytest.mark.parametrize("buffered", [True, False], ids=["pixels", "tokens"])
def test_memory_that_others_take_meanwhile(photos, tokens, monkeypatch, fails, buffered):
    """torch refuses where it allocates: in this process, or in a worker."""

    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    loader = EvalLoader(photos if buffered else tokens, 6, workers=1)
    with fails(DataError, "/dev/shm: shared memory is refused", "No space", *REMEDY):
        list(loader)


def test_a_worker_that_the_system_kills(tokens, monkeypatch, fails):
    parent = os.getpid()

    def killed(batch):
        assert os.getpid() != parent
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(collate, "shared", killed)
    with fails(DataError, "killed from outside", "fewer workers or a smaller batch"):
        list(EvalLoader(tokens, 6, workers=1))
    text = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."
    with fails(DataError, "shared memory is refused", *REMEDY), told_as_shortage():
        raise RuntimeError(text)
    for text in ("received 0 items of ancdata", "object </torch_1>: Too many open files (24)"):
        with fails(DataError, "too many open files", "ulimit -n"), told_as_shortage():
            raise RuntimeError(text)
    for text in ("another bug", "out of resource: shared memory, hardware limit"):  # of a GPU
        with pytest.raises(RuntimeError, match=f"^{text}"), told_as_shortage():
            raise RuntimeError(text)


def test_errors_of_the_data_set_come_from_workers_in_one_line(numbers, fails):
    class Gone(numbers):
        def sample(self, index, epoch=0, seed=0):
            if index == 3:
                raise DataError("shard x.tar: cannot be read")
            return super().sample(index, epoch, seed)

    for workers in (0, 1):
        for loader in (
            TrainLoader(Gone(8), Order(8, 4, 0), steps=2, workers=workers),
            EvalLoader(Gone(8), 4, workers=workers),
        ):
            with fails(DataError, "^shard x.tar: cannot be read$"):
                list(loader)
