"""The data part webdataset: labels, both ways of reading, exact resume."""

import json

import pytest
import torch

from tests.support.tars import data, write_tar
from vistok.config import ConfigError, validate
from vistok.data import (
    BadSample,
    DataError,
    Order,
    Stream,
    StreamLoader,
    TrainLoader,
    WebDatasetConfig,
)


def equal(one, two):
    return all(
        torch.equal(getattr(one, f), getattr(two, f)) for f in ("index", "pixels", "label", "flip")
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_eight_batches_after_a_resume(shards, workers):
    folder = shards(7, 5, 9, 3)
    part = data(train=f"{folder}/*.tar", classes=2, crop="random", min_share=0.5, shuffle=4)
    loader = StreamLoader(part.open("train"), 4, 0, steps=16, lanes=2, workers=workers)
    whole, positions = [], []
    for batch in loader:
        whole.append(batch)
        positions.append(json.loads(json.dumps(loader.positions)))
    for start in (1, 4, 8):  # 6 batches an epoch
        rest = StreamLoader(
            part.open("train"),
            4,
            0,
            steps=start + 8,
            start_step=start,
            positions=positions[start - 1],
            lanes=2,
            workers=workers,
        )
        assert all(equal(a, b) for a, b in zip(rest, whole[start : start + 8], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_by_index_resumes_too(shards, workers):
    dataset = data(train=f"{shards(7, 5)}/*.tar", classes=2, streaming=False).open("train")
    assert not isinstance(dataset, Stream) and len(dataset) == 12
    load = lambda **o: list(TrainLoader(dataset, Order(12, 4, 0), workers=workers, **o))
    whole = load(steps=10)
    assert all(equal(a, b) for a, b in zip(load(steps=10, start_step=2), whole[2:], strict=True))


def test_both_ways_give_the_same_samples(shards):
    names = {"train": f"{shards(6, 4)}/*.tar", "val": f"{shards(6, 4)}/*.tar"}
    for options in (
        {"classes": 2},
        {"classes": ("a", "b"), "label_key": "class"},
        {"image": "PNG"},
    ):
        part = data(**names, **options)
        stream, dataset = part.open("train"), part.open("val")
        assert stream.count == len(dataset) == 10 and stream.classes == dataset.classes
        entries = [e for shard in range(stream.shards) for e in stream.read(shard)]
        for index, entry in enumerate(entries):
            one, two = stream.decode(entry.content, 0, 0, 0), dataset[index]
            assert (one.label, one.name) == (two.label, two.name)
            assert torch.equal(one.pixels, two.pixels)
            assert one.label == (index % 2 if "classes" in options else -1)
    assert stream.size == (8, 8) and stream.flip and not dataset.flip


def test_a_resume_reads_no_sample_again_but_a_block(shards, monkeypatch):
    from vistok.data.kinds.tar_shards import TarShard

    part = data(train=f"{shards(60)}/*.tar", shuffle=4)
    loader = StreamLoader(part.open("train"), 4, 0, steps=13)
    assert len(list(loader)) == 13
    read, original = [], TarShard.read

    def counted(self, count):
        result = original(self, count)
        read.append(len(result))
        return result

    monkeypatch.setattr(TarShard, "read", counted)
    images = lambda: sum(n > 200 and n != 512 for n in read)  # headers are 512, labels less
    stream, going = part.open("train"), {"start_step": 13, "positions": loader.positions}
    read.clear()
    next(iter(StreamLoader(stream, 4, 0, steps=14, **going)))
    assert images() == 4  # a block
    read.clear()
    next(iter(StreamLoader(stream, 52, 0, steps=1)))
    assert images() == 52


def test_labels(tmp_path, shards, fails):
    image = (shards(1) / "part-00.tar").read_bytes()[512:1024]
    path = str(tmp_path / "labels.tar")

    def reason(member, content, **options):
        write_tar(path, [("a.png", image), (f"a.{member}", content)])
        with pytest.raises(BadSample) as caught:
            data(val=path, **options).open("val")[0]
        return str(caught.value)

    for text in (b"2", b"-1", b"1.5", b"", b"\xff", "²".encode(), b"9" * 5000):
        assert "expected 0..1" in reason("cls", text, classes=2)
    for content in (b"{", b"[]", b"{}", b"[" * 100_000):
        assert "no key 'class' in its .json" in reason(
            "json", content, classes=2, label_key="class"
        )
    for content in (b'{"class": true}', b'{"class": "1"}', b'{"class": 2}'):
        assert "expected 0..1" in reason("json", content, classes=2, label_key="class")
    assert "2 images among its members" in reason("jpg", image, classes=2)
    assert "no image" in reason("cls", b"1", classes=2, image="webp")
    for names, content in (("names.txt", "cat\ndog\n"), ("names.json", '["cat", "dog"]')):
        (tmp_path / names).write_text(content)
        part = data(val=f"{tmp_path}/part-00.tar", classes=str(tmp_path / names))
        assert part.open("val").classes == ("cat", "dog")
    with fails(DataError, "gone.txt: cannot be read"):
        data(val=f"{tmp_path}/part-00.tar", classes="gone.txt").open("val")


def test_configs(shards, fails):
    with fails(ConfigError, "neither train nor val is given"):
        validate(WebDatasetConfig, {})
    with fails(ConfigError, "label_key=c needs classes"):
        validate(WebDatasetConfig, {"train": "a.tar", "label_key": "c"})
    folder = shards(2, 2)
    with fails(DataError, "no val split; give val"):
        data(train=f"{folder}/*.tar").open("val")
    one = data(train=f"{folder}/*.tar").open("train").record()
    assert one["count"] == 4 and one["shards"] == 2 and json.dumps(one)
    with open(folder / "part-01.tar", "ab") as file:
        file.write(b"\0" * 512)
    assert data(train=f"{folder}/*.tar").open("train").record()["manifest"] != one["manifest"]
