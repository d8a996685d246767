"""Position by index: a resume costs what a start costs and gives the same rows, for every kind."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vistok.config.registry import build
from vistok.data import (
    CachedTokensConfig,
    FolderConfig,
    Order,
    ParquetConfig,
    PhotosConfig,
    TokenCacheWriter,
    TrainLoader,
)
from vistok.tokens import Tokens, TokenSpec

COUNT = 23  # no multiple of any batch size below
FAR = 10_000_000  # samples
KINDS = ("folder", "parquet", "tokens", "photos")


@pytest.fixture
def open_kind(tmp_path, make_image):
    """open_kind(name): a training set of COUNT samples whose crops differ from epoch to epoch."""

    def folder():
        for i in range(COUNT):
            path = tmp_path / "folder" / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_image(20, 16, i).save(path)
        return FolderConfig(path=str(tmp_path / "folder"), size=8, crop="random", min_share=0.5)

    def parquet():
        folder()
        files = sorted((tmp_path / "folder").rglob("*.png"))
        rows = [{"image": f.read_bytes(), "label": i % 3} for i, f in enumerate(files)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=4)
        return ParquetConfig(train=str(tmp_path / "x.parquet"), size=8, pad=2)

    def tokens():
        spec = TokenSpec(blocks=((3,),), vocab=(1000,))
        facts = {"source": {}, "tokenizer": "tiny", "sha256": "1", "classes": ("a", "b")}
        rows = np.random.default_rng(0).integers(0, 1000, (4 * COUNT, 3, 1))
        with TokenCacheWriter(tmp_path / "c", spec, 4 * COUNT, crops=4, **facts) as writer:
            if not writer.finished:
                labels = torch.arange(4 * COUNT) // 4 % 2
                writer.write(Tokens.of(spec, torch.from_numpy(rows)), labels)
        return CachedTokensConfig(path=str(tmp_path / "c"))

    def photos():
        return PhotosConfig(size=8, count=COUNT)

    made = {"folder": folder, "parquet": parquet, "tokens": tokens, "photos": photos}
    return lambda name: build(made[name]()).open("train")


def content(batch) -> list:
    fields = [batch.index, batch.label, batch.pixels, batch.flip]
    fields.append(None if batch.tokens is None else batch.tokens.indices)
    return [None if field is None else (field.dtype, field.tolist()) for field in fields]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_next_8_batches_after_a_resume(open_kind, kind, workers):
    """Over the ends of two epochs: 5 does not divide 23, and 8 batches are 40 samples."""
    data, start = open_kind(kind), 3
    whole = list(TrainLoader(data, Order(COUNT, 5, seed=7), steps=start + 8))
    assert {epoch for s in range(start, start + 8) for epoch, _ in data_order(s)} == {0, 1, 2}
    rest = TrainLoader(
        open_kind(kind),
        Order(COUNT, 5, seed=7),
        steps=start + 8,
        start_step=start,
        workers=workers,
    )
    rest = list(rest)
    assert len(rest) == 8
    for one, two in zip(whole[start:], rest, strict=True):
        assert content(one) == content(two)
    assert content(rest[0]) != content(rest[5])


def data_order(step: int) -> list[tuple[int, int]]:
    return Order(COUNT, 5, seed=7).indices(step)


def work(data, monkeypatch, start: int) -> tuple[list, list]:
    """(indices, row groups) that the first two batches from a step read, each as often as read."""
    samples, groups = [], []
    take = data.sample
    with monkeypatch.context() as patch:
        patch.setattr(data, "sample", lambda i, *keys: samples.append(i) or take(i, *keys))
        if hasattr(data, "shards"):
            data.shards._forget()
            opened = data.shards._open

            def counting(path):
                file = opened(path)
                read = file.read_row_group
                count = lambda n, *a, **k: groups.append(n) or read(n, *a, **k)
                return type("File", (), {"read_row_group": staticmethod(count)})()

            patch.setattr(data.shards, "_open", counting, raising=False)
        loader = TrainLoader(data, Order(COUNT, 5, seed=7), steps=start + 2, start_step=start)
        assert len(list(loader)) == 2
    return samples, groups


@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_at_sample_10_million_reads_no_more(open_kind, monkeypatch, kind):
    data, far = open_kind(kind), FAR // 5 + 1
    for start in (0, far):
        samples, groups = work(data, monkeypatch, start)
        order = Order(COUNT, 5, seed=7)
        assert samples == [i for s in (start, start + 1) for _, i in order.indices(s)]
        assert set(groups) == ({i // 4 for i in samples} if kind == "parquet" else set())
        assert len(groups) == len(set(groups))


def test_the_order_computes_one_permutation_wherever_it_starts(monkeypatch):
    made = []
    compute = np.random.Generator.permutation
    from vistok.data import order as module

    class Counting:
        def __init__(self, seed, name, epoch):
            self.epoch, self.rng = epoch, Rng(seed, name, epoch)

        def generator(self):
            made.append(self.epoch)
            return self.rng.generator()

    Rng = module.Rng
    assert compute is np.random.Generator.permutation
    monkeypatch.setattr(module, "Rng", Counting)
    for position, epoch in ((0, 0), (FAR, FAR // COUNT), (FAR + COUNT, FAR // COUNT + 1)):
        Order(COUNT, 5, seed=7).at(position)
        assert made.pop() == epoch and not made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8])
def test_an_epoch_is_shared_out_over_ranks_and_workers(open_kind, batch_size, world, workers):
    """Neither 4 nor 8 divides 23: epochs are cut from the endless row of positions."""
    data, order = open_kind("photos"), Order(COUNT, batch_size, seed=3)
    steps = -(-2 * COUNT // batch_size)
    ranks = [
        TrainLoader(data, order, steps=steps, workers=workers, rank=rank, world=world)
        for rank in range(world)
    ]
    rows = [i for parts in zip(*ranks, strict=True) for part in parts for i in part.index.tolist()]
    assert len(rows) == steps * batch_size
    for epoch in range(2):
        assert sorted(rows[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))
