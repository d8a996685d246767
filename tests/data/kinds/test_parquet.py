import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import BadSample, DataError, EvalLoader, Order, ParquetConfig, TrainLoader


def open_parquet(split="train", **values):
    values.setdefault("size", 16)
    return build(ParquetConfig(**values)).open(split)


@pytest.fixture
def png(make_image):
    def make(seed: int) -> bytes:
        buffer = io.BytesIO()
        make_image(20, 16, seed).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def shards(tmp_path, png):
    """Two shards of 7 and 5 rows in row groups of 3."""
    for number, count in enumerate((7, 5)):
        rows = [{"bytes": png(10 * number + i), "path": None} for i in range(count)]
        table = pa.table({"image": rows, "label": list(range(count))})
        pq.write_table(table, tmp_path / f"train-{number}.parquet", row_group_size=3)
    return tmp_path


def test_rows_in_any_order(shards, png):
    data = open_parquet(train=str(shards / "train-*.parquet"))
    assert len(data) == 12 and data.classes == tuple("0123456")
    for index in (11, 0, 6, 7, 3, 11):
        sample = data[index]
        shard, row = (0, index) if index < 7 else (1, index - 7)
        assert sample.label == row and sample.name == f"train-{shard}.parquet[{row}]"
        expected = torch.from_numpy(np.asarray(png_pixels(png(10 * shard + row))))
        assert torch.equal(sample.pixels, expected)


def png_pixels(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))[:, 2:18].transpose(2, 0, 1).copy()


def test_row_groups_are_forgotten_beyond_the_limit(shards, monkeypatch):
    data = open_parquet(train=str(shards / "*.parquet"))
    data.shards._limit = 1
    first = [data[i].pixels for i in range(12)]
    assert len(data.shards._tables) == 1
    assert all(torch.equal(a, data[i].pixels) for i, a in enumerate(first))


def test_memory_gives_the_same_images(shards):
    for extra in ({}, {"pad": 3}, {"crop": "random", "min_share": 0.5}):
        pattern = str(shards / "*.parquet")
        plain = open_parquet(train=pattern, **extra)
        kept = open_parquet(train=pattern, cache=True, **extra)
        for index in range(12):
            one, two = plain.sample(index, 2, 1), kept.sample(index, 2, 1)
            assert torch.equal(one.pixels, two.pixels) and one.label == two.label


def test_plain_bytes_without_labels(tmp_path, png):
    table = pa.table({"img": pa.array([png(1)], pa.binary()), "other": [1]})
    pq.write_table(table, tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    data = open_parquet(train=path, image_column="img", label_column=None)
    assert data[0].label == -1 and data.classes == ()
    with pytest.raises(DataError, match="no column 'image'; it has img, other"):
        open_parquet(train=path)


def test_class_names_beside_the_shards(shards):
    names = [f"c{i}" for i in range(7)]
    forms = [names, {"names": names}]
    forms.append([{"label": i, "class_name": name} for i, name in enumerate(names)])
    for content in forms:
        (shards / "classes.json").write_text(json.dumps(content))
        assert open_parquet(train=str(shards / "*.parquet")).classes == tuple(names)
    (shards / "classes.json").write_text(json.dumps(["only one"]))
    data = open_parquet(train=str(shards / "*.parquet"))
    with pytest.raises(BadSample, match=r"label 1; expected 0\.\.0"):
        data[1]
    (shards / "classes.json").write_text("{")
    with pytest.raises(DataError, match=r"classes\.json: cannot be read"):
        open_parquet(train=str(shards / "*.parquet"))


def test_held_out_rows(shards):
    pattern = str(shards / "*.parquet")
    splits = [open_parquet(s, train=pattern, val_share=0.3) for s in ("train", "val")]
    names = [{sample.name for sample in data} for data in splits]
    assert splits[0].record()["manifest"] != splits[1].record()["manifest"]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 12 and names[1]


@pytest.mark.parametrize("cache", [False, True])
def test_manifest_rows(shared, cache):
    good = open_parquet(train=str(shared / "broken" / "ok_24.parquet"), cache=cache)
    assert len([sample for sample in good]) == 24
    assert len(good.classes) == 1000 and good.classes[0] == "n01440764 tench"
    path = str(shared / "broken" / "bad_rows.parquet")

    def read(**values):
        data = open_parquet(train=path, cache=cache, **values)
        bad, unlabeled = {}, []
        for index in range(len(data)):
            try:
                unlabeled += [index] * (data[index].label == -1)
            except BadSample as error:
                bad[index] = str(error)
        return bad, unlabeled

    bad, unlabeled = read()
    assert set(bad) == {3, 7, 11} and unlabeled == [15]
    assert all(text.startswith(f"bad_rows.parquet[{i}]: ") for i, text in bad.items())
    assert "not an image" in bad[3] and "null" in bad[7]
    bad, unlabeled = read(need_label=True)
    assert set(bad) == {3, 7, 11, 15} and not unlabeled


def test_every_parquet_of_the_manifest_is_tested(shared):
    files = json.loads((shared / "broken" / "manifest.json").read_text("utf-8"))["files"]
    assert {f["file"] for f in files if f["kind"] == "parquet"} == {
        "ok_24.parquet", "bad_rows.parquet", "truncated.parquet", "bad_footer_length.parquet"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["truncated.parquet", "bad_footer_length.parquet"])
def test_manifest_shards(shared, name):
    paths = [str(shared / "broken" / n) for n in ("ok_24.parquet", name)]
    with pytest.raises(DataError, match=name) as caught:
        open_parquet(train=paths)
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_errors_are_one_line(shards):
    with pytest.raises(DataError, match="no such file"):
        open_parquet(train=str(shards / "nothing-*.parquet"))
    with pytest.raises(DataError, match="no val split; give val or val_share"):
        open_parquet("val", train=str(shards / "*.parquet"))
    with pytest.raises(ConfigError, match="neither train nor val"):
        validate(ParquetConfig, {})


def test_cifar10(shared):
    folder = shared / "cifar10"
    config = ParquetConfig(
        train=str(folder / "train-*.parquet"), val=str(folder / "test-*.parquet"), pad=4
    )
    train, val = build(config).open("train"), build(config).open("val")
    assert (len(train), len(val)) == (30000, 5000)
    assert train.classes == val.classes and train.classes[3] == "cat" and len(train.classes) == 10
    assert train.record()["manifest"] != val.record()["manifest"]
    order = Order(len(train), 64, seed=1)
    batches = {
        workers: list(TrainLoader(train, order, steps=470, start_step=467, workers=workers))
        for workers in (0, 2)
    }
    for one, two in zip(*batches.values(), strict=True):
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.flip, two.flip)
        assert torch.equal(one.index, two.index) and torch.equal(one.label, two.label)
    labels = torch.cat([batch.label for batch in EvalLoader(val, 500, limit=1000)])
    assert labels.bincount(minlength=10).min() > 50
