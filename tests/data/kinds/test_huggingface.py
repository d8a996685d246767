"""The data part huggingface: files, folders, streams, exact resume, what is refused."""

import importlib.util
import io
import json
import os
import pickle

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import (
    BadSample,
    DataError,
    HuggingFaceConfig,
    Order,
    Stream,
    StreamLoader,
    TrainLoader,
)

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three training shards of 11, 7 and 9 rows, one for validation, and a saved folder."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("hf")
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )

    def table(start, stop):
        rng, images = np.random.default_rng(start), []
        for _ in range(start, stop):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(file, "png")
            images.append({"bytes": file.getvalue(), "path": None})
        rows = {"id": range(start, stop), "image": images}
        return datasets.Dataset.from_dict(
            {**rows, "label": [i % 2 for i in range(start, stop)]}, features
        )

    for name, start, stop in (("a", 0, 11), ("b", 11, 18), ("c", 18, 27), ("val", 27, 32)):
        table(start, stop).to_parquet(folder / f"{name}.parquet")
    table(0, 27).save_to_disk(folder / "saved", num_shards=3)
    return folder


def part(files, cache, **options):
    options = {
        "path": "parquet",
        "data_files": {
            "train": [f"{files}/{name}.parquet" for name in "abc"],
            "validation": f"{files}/val.parquet",
        },
        "count": 27,
        "cache_dir": str(cache),
        "size": 8,
        **options,
    }
    return build(validate(HuggingFaceConfig, options))


def equal(one, two):
    return all(
        torch.equal(getattr(one, f), getattr(two, f)) for f in ("index", "pixels", "label", "flip")
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_resume_exactly(files, tmp_path, workers):
    opened = lambda: part(files, tmp_path, streaming=True, shuffle=4).open("train")
    load = lambda **o: StreamLoader(opened(), 4, 0, lanes=2, workers=workers, **o)
    loader, whole, positions = load(steps=15), [], []
    for batch in loader:
        whole.append(batch)
        positions.append(json.loads(json.dumps(loader.positions)))
    for start in (1, 5):  # nearly 7 batches an epoch
        going = {"start_step": start, "positions": positions[start - 1], "steps": start + 8}
        rest = list(load(**going))
        assert all(equal(a, b) for a, b in zip(rest, whole[start : start + 8], strict=True))
    first = [i for batch in whole for i in batch.index.tolist()]
    rows = {(s << 40) | row for s, size in enumerate((11, 7, 9)) for row in range(size)}
    assert set(first) == rows


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_by_index_resume_exactly(files, tmp_path, workers):
    dataset = part(files, tmp_path).open("train")
    assert not isinstance(dataset, Stream) and len(dataset) == 27
    assert dataset.classes == ("cat", "dog") and dataset.size == (8, 8) and dataset.flip
    load = lambda **o: list(TrainLoader(dataset, Order(27, 4, 0), workers=workers, **o))
    whole = load(steps=13)
    assert all(equal(a, b) for a, b in zip(load(steps=13, start_step=5), whole[5:], strict=True))


def test_both_ways_give_the_same_samples(files, tmp_path):
    stream = part(files, tmp_path, streaming=True).open("train")
    dataset = part(files, tmp_path).open("train")
    entries = [e for shard in range(stream.shards) for e in stream.read(shard)]
    assert stream.shards == 3 and stream.classes == dataset.classes and len(entries) == 27
    for index, entry in enumerate(entries):
        one, two = stream.decode(entry.content, 5, 0, 0), dataset[index]
        assert one.label == two.label == index % 2 and torch.equal(one.pixels, two.pixels)
    val = part(files, tmp_path, streaming=True).open("val")
    assert not isinstance(val, Stream) and len(val) == 5 and not val.flip
    records = [stream.record(), dataset.record(), val.record()]
    assert [r["count"] for r in records] == [27, 27, 5] and json.dumps(records)
    assert len({r["manifest"] for r in records}) == 3


@pytest.mark.parametrize("offset", [0, 1, 6, 10, 11])
def test_reading_begins_at_a_row(files, tmp_path, monkeypatch, offset):
    from vistok.data.kinds import huggingface

    monkeypatch.setattr(huggingface, "_ROWS", 4)
    stream = part(files, tmp_path, streaming=True).open("train")
    whole = list(stream.read(0))
    assert [e.offset for e in whole] == list(range(11)) and [e.after for e in whole][-1] == 11
    assert list(stream.read(0, offset)) == whole[offset:]


def test_a_saved_folder(files, tmp_path, fails):
    saved = {"path": str(files / "saved"), "data_files": None}
    dataset = part(files, tmp_path, **saved).open("train")
    stream = part(files, tmp_path, **saved, streaming=True).open("train")
    assert len(dataset) == 27 and stream.shards == 3 and stream.classes == ("cat", "dog")
    assert torch.equal(
        next(iter(StreamLoader(stream, 3, 0, steps=1))).label >= 0, torch.ones(3) > 0
    )
    both = datasets.DatasetDict({"train": dataset._table, "validation": dataset._table})
    both.with_format(None).save_to_disk(tmp_path / "both")
    val = part(files, tmp_path, path=str(tmp_path / "both"), data_files=None).open("val")
    assert torch.equal(val[3].pixels, dataset[3].pixels)
    with fails(DataError, "both: the split 'test' cannot be opened"):
        part(files, tmp_path, path=str(tmp_path / "both"), val_split="test").open("val")


def test_a_folder_of_images(tmp_path, tree):
    (tree / "b/deep/er/1.jpg").rename(tree / "b/1.jpg")  # the library labels flat folders only
    (tree / "a/Z.webp").write_bytes(b"no image")
    (tree / "a/._9.jpg").unlink()
    path = {"path": str(tree), "data_files": None}
    dataset = part(tree, tmp_path / "cache", **path).open("train")
    stream = part(tree, tmp_path / "cache", **path, streaming=True, count=7).open("train")
    assert dataset.classes == stream.classes == ("a", "b")
    good = 0
    for index in range(len(dataset)):
        try:
            good += dataset[index].pixels.shape == (3, 8, 8)
        except BadSample as bad:
            assert "not an image" in str(bad)
    assert good == len(dataset) - 1 == 6
    assert len(list(StreamLoader(stream, 6, 0, steps=2, lanes=1, max_bad_share=1.0))) == 2


def test_broken_parquet_files(broken, tmp_path, fails):
    options = {"count": 24, "need_label": True, "size": 16, "shuffle": 0}
    files = lambda name: {"train": str(broken / name), "validation": str(broken / name)}
    for name, good in (("ok_24.parquet", 24), ("bad_rows.parquet", 20)):
        opened = part(broken, tmp_path, data_files=files(name), streaming=True, **options)
        loader = StreamLoader(
            opened.open("train"), good, 0, steps=2, folder=tmp_path / name, max_bad_share=1.0
        )
        first, second = [batch.index.tolist() for batch in loader]
        assert first == second and len(set(first)) == good
        dataset, bad = opened.open("val"), []
        for index in range(len(dataset)):
            try:
                dataset[index]
            except BadSample as error:
                bad.append(index)
                assert "\n" not in str(error)
        assert bad == ([3, 7, 11, 15] if good == 20 else [])
    noted = (tmp_path / "bad_rows.parquet/quarantine.jsonl").read_text()
    for words in ("not an image", "only names a file", "cannot be decoded", "no label"):
        assert words in noted
    for name in ("truncated.parquet", "bad_footer_length.parquet"):
        opened = part(broken, tmp_path, data_files=files(name), streaming=True, **options)
        with fails(DataError, "data.huggingface parquet"):
            next(iter(StreamLoader(opened.open("train"), 4, 0, steps=1)))
        with fails(DataError, "data.huggingface parquet: the split 'validation' cannot be opened"):
            opened.open("val")


def test_mistakes_are_one_line(files, tmp_path, fails, monkeypatch):
    for options, words in [
        ({"streaming": True, "count": None}, "whose length is not stated; give count"),
        ({"image_column": "img"}, "no column 'img'; it has id, image, label"),
        ({"label_column": "id"}, "column 'id' does not say its classes; give classes"),
        ({"train_split": "test"}, "the split 'test' cannot be opened"),
        ({"train_split": None}, "no train split; give train_split"),
        ({"data_files": f"{files}/gone.parquet"}, "the split 'train' cannot be opened"),
        ({"path": str(files / "nowhere"), "data_files": None}, "cannot be opened"),
        ({"path": "no-such/data-set", "data_files": None}, "cannot be opened"),  # offline
    ]:
        with fails(DataError, words):
            part(files, tmp_path, **options).open("train")
    opened = part(files, tmp_path, label_column="id", classes=5).open("train")
    assert opened[4].label == 4
    with pytest.raises(BadSample, match=r"parquet\[5\]: label 5; expected 0\.\.4"):
        opened[5]
    assert part(files, tmp_path, label_column=None).open("train").classes == ()
    real = importlib.util.find_spec
    gone = lambda name, *rest: None if name == "datasets" else real(name, *rest)
    monkeypatch.setattr(importlib.util, "find_spec", gone)
    with fails(ConfigError, r"pip install 'vistok\[hf\]'"):
        part(files, tmp_path).open("train")


class Bomb:
    def __reduce__(self):
        return open, ("PWNED", "w")


@pytest.mark.parametrize("streaming", [False, True])
def test_no_code_of_a_data_set_runs(tmp_path, monkeypatch, fails, streaming):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text("open('PWNED', 'w')\n")
    for path, names in (("pandas", "bomb.pkl"), ("csv", "bomb.pkl"), (str(folder), None)):
        with fails(DataError, "data.huggingface"):
            part(
                tmp_path, tmp_path / "cache", path=path, data_files=names, streaming=streaming
            ).open("train")
    with fails(DataError, "data.huggingface"):
        part(tmp_path, tmp_path / "cache", path=str(folder / "script.py"), data_files=None).open(
            "train"
        )
    assert not (tmp_path / "PWNED").exists()


def test_no_path_in_a_row_is_followed(tmp_path, tree):
    image = str(tree / "a" / "y.png")
    rows = {"image": [{"bytes": None, "path": image}], "label": [0]}
    features = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["a"]),
        }
    )
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "a.parquet")
    opened = part(tmp_path, tmp_path / "cache", data_files=str(tmp_path / "a.parquet"))
    with pytest.raises(BadSample, match="only names a file"):
        opened.open("train")[0]
    assert os.path.exists(image)
