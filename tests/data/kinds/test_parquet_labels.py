"""Label columns of parquet shards: every type, class names, and shards that contradict."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.tars import png
from vistok.config.registry import build
from vistok.data import BadSample, DataError, HuggingFaceConfig, ParquetConfig
from vistok.data.kinds.class_names import ClassNumbers
from vistok.data.kinds.parquet_labels import label_classes


def opened(split="train", **values):
    return build(ParquetConfig(size=8, **values)).open(split)


def labels(data):
    found = []
    for index in range(len(data)):
        try:
            found.append(data[index].label)
        except BadSample as bad:
            found.append(bad.reason)
    return found


@pytest.fixture
def shard(tmp_path, make_image):
    """shard(labels, name, metadata) -> path of a parquet file with these labels."""

    def make(column, name="a", metadata=None):
        column = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
        images = pa.array([png(make_image, n) for n in range(len(column))])
        table = pa.table({"image": images, "label": column}).replace_schema_metadata(metadata)
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("name", "classes", "found"),
    [
        ("strings", ("cat", "dog", "owl"), [0, 1, 2] * 8),
        ("floats", ("0", "1", "2"), [0, 1, 2] * 8),
        ("floats_null", ("0", "1", "2"), [n % 3 if n != 5 else -1 for n in range(24)]),
        ("from_one", ("0", "1", "2", "3"), [1, 2, 3] * 8),
        ("large_binary", ("0", "1", "2"), [0, 1, 2] * 8),
        ("binary_view", ("0", "1", "2"), [0, 1, 2] * 8),
        ("some_unlabelled", ("0", "1", "2"), [n % 3 if n % 4 else -1 for n in range(24)]),
    ],
)
def test_what_was_reported(shared, name, classes, found):
    path = shared / "reported" / "parquet_labels" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = opened(train=str(path))
    assert data.classes == classes
    assert labels(data) == found


def test_what_was_reported_and_cannot_be_used(shared, fails):
    place = shared / "reported" / "parquet_labels"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    with fails(DataError, r"floats_nan.parquet: the column 'label' \(of type double\) holds nan"):
        opened(train=str(place / "floats_nan.parquet"))
    data = opened(train=str(place / "arrays.parquet"))
    assert set(labels(data)) == {"holds list; expected the bytes of a file"}


@pytest.mark.parametrize(
    ("column", "classes", "found"),
    [
        (pa.array([1, None, 0], pa.uint8()), ("0", "1"), [1, -1, 0]),
        (pa.array([1, -1, 0], pa.int16()), ("0", "1"), [1, -1, 0]),
        (pa.array([True, False, None]), ("0", "1"), [1, 0, -1]),
        (pa.array([2.0, None, 0.0], pa.float32()), ("0", "1", "2"), [2, -1, 0]),
        (pa.array([None, None, None]), (), [-1, -1, -1]),
        (pa.array(["b", "", None, "ä", "b"]), ("b", "ä"), [0, -1, -1, 1, 0]),
        (pa.array(["10", "9", "10"], pa.large_string()), ("9", "10"), [1, 0, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
        (pa.array(["b", "a", None], pa.string_view()), ("a", "b"), [1, 0, -1]),
    ],
)
def test_types_of_labels(shard, column, classes, found):
    data = opened(train=shard(column))
    assert (data.classes, labels(data)) == (classes, found)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([0.0, 1.5], r"'label' \(of type double\) holds 1.5; expected whole numbers"),
        ([0.0, float("nan")], r"'label' \(of type double\) holds nan; expected whole numbers"),
        ([float("inf")], "holds inf; expected whole numbers"),
        ([b"cat"], r"'label' \(of type binary\) holds no labels; expected whole numbers or str"),
        ([[1, 2]], r"of type list<.*> ?\) holds no labels"),
        ([{"id": 1}], r"of type struct<id: int64>\) holds no labels"),
        ([10**12], "label 1000000000000; expected class numbers below 1048576; this looks like an"),
    ],
)
def test_what_is_no_label_is_one_line(shard, fails, column, words):
    path = shard(column)
    with fails(DataError, f"data.parquet {path}.*{words}"):
        opened(train=path)
    assert labels(opened(train=path, label_column=None)) == [-1] * len(column)


def test_names_that_are_given_are_matched(shard, tmp_path, fails):
    path = shard(["dog", "cat", "fox"])
    data = opened(train=path, classes=("cat", "dog"))
    wrong = "label 'fox'; expected 0..1 or a class name (cat, dog)"
    assert data.classes == ("cat", "dog") and labels(data) == [1, 0, wrong]
    (tmp_path / "names.txt").write_text("\ufefffox\ncat\n\ndog\n", "utf-8")
    assert labels(opened(train=path, classes=str(tmp_path / "names.txt"))) == [2, 1, 0]
    (tmp_path / "classes.json").write_text(json.dumps(["fox", "dog", "cat"]), "utf-8")
    assert labels(opened(train=path)) == [1, 2, 0]
    with fails(DataError, "the column 'label' holds strings, and classes=3 gives no names"):
        opened(train=path, classes=3)


def test_validation_has_the_classes_of_training(shard):
    train, val = shard(["a", "b", "c"]), shard(["c", "c", "z"], "val")
    data = opened("val", train=train, val=val)
    assert data.classes == ("a", "b", "c")
    assert labels(data) == [2, 2, "label 'z'; expected 0..2 or a class name (a, b, c)"]
    assert opened("val", val=val).classes == ("c", "z")
    numbers = opened("val", train=shard([0, 1, 2]), val=shard([1, 1], "val"))
    assert numbers.classes == ("0", "1", "2") and labels(numbers) == [1, 1]


def test_validation_where_training_shards_are_not(shard, tmp_path, fails):
    val, gone = shard(["c", "z"], "val"), str(tmp_path / "gone.parquet")
    with fails(DataError, "gone.parquet: no such file"):  # its classes are not known
        opened("val", train=gone, val=val)
    assert labels(opened("val", train=gone, val=val, classes=("a", "c", "z"))) == [1, 2]
    (tmp_path / "classes.json").write_text('["z", "c"]', "utf-8")
    assert labels(opened("val", train=gone, val=val)) == [1, 0]


def test_shards_that_contradict_each_other(shard, fails):
    texts, numbers = shard(["a", "b"], "texts"), shard([0, 1], "numbers")
    for split, config in (("train", {"train": (texts, numbers)}),
                          ("val", {"train": texts, "val": numbers})):  # fmt: skip
        with fails(DataError, "numbers.parquet: .*holds numbers, but in .*texts.parquet strings"):
            opened(split, **config)
    empty = shard([None, None], "empty")
    assert labels(opened(train=(texts, empty))) == [0, 1, -1, -1]
    features = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    named = [
        shard([0, 1], name, {b"huggingface": json.dumps({"info": {"features": about}}).encode()})
        for name, about in (("one", features), ("two", {"label": {"names": ["b", "a"]}}))
    ]
    assert opened(train=(named[0], numbers)).classes == ("a", "b")
    with fails(DataError, "two.parquet: other class names in the column 'label' than in"):
        opened(train=tuple(named))
    assert opened(train=tuple(named), classes=("x", "y")).classes == ("x", "y")


def test_need_label_and_labels_out_of_range(shard):
    path = shard([0, 1, None, -5, 7])
    short = {"classes": 2}
    assert labels(opened(train=path, **short)) == [
        0, 1, -1, "label -5; expected 0..1", "label 7; expected 0..1"
    ]  # fmt: skip
    assert labels(opened(train=path, need_label=True, **short))[2] == "has no label (label=None)"


def test_labels_are_read_once_a_name_is_known(shard, tmp_path, monkeypatch):
    (tmp_path / "classes.json").write_text('["a", "b"]', "utf-8")
    path = shard([0, 1])
    monkeypatch.setattr(pq.ParquetFile, "read", None)  # a large set must not be read for it
    assert label_classes([tmp_path / "a.parquet"], [], "label", None).classes == ("a", "b")
    assert path.endswith("a.parquet")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("2", "label '2'; expected 0..1"),
        (2, "label 2; expected 0..1"),
        (10**30, "label beyond 10"),
        (0.5, "label 0.5; expected 0..1"),
        (True, "label True; expected 0..1"),
        ([1], r"label \[1\]; expected 0..1"),
        ("x" * 99, "label 'xxx.*x...; expected"),
    ],
)
def test_numbers_of_classes(fails, label, words):
    numbers = ClassNumbers(("a", "b"), named=False)
    with fails(ValueError, words):
        numbers(label)
    assert (numbers(1), numbers(1.0)) == (1, 1)
    assert ClassNumbers(("a", "b"), named=True)("b") == 1
    with fails(ValueError, "label 0; expected none, as no other has one"):
        ClassNumbers((), named=False)(0)


@pytest.mark.parametrize("streaming", [False, True])
def test_huggingface_labels(shard, tmp_path, fails, streaming):
    pytest.importorskip("datasets")
    files = {"train": shard(["b", "a", ""]), "validation": shard(["a"], "val")}
    config = HuggingFaceConfig(
        path="parquet", data_files=files, size=8, streaming=streaming, cache_dir=str(tmp_path / "h")
    )
    part = build(config)
    if streaming:
        with fails(DataError, "column 'label' does not say its classes; give classes"):
            part.open("train")
        part = build(config.model_copy(update={"classes": ("a", "b"), "count": 3}))
        stream = part.open("train")
        entries = [entry.content[2] for entry in stream.read(0)]
        assert stream.classes == ("a", "b") and entries == [1, 0, -1]
    else:
        assert part.open("train").classes == ("a", "b") == part.open("val").classes
        assert labels(part.open("train")) == [1, 0, -1] and labels(part.open("val")) == [0]
    floats = {"train": shard([1.0, None, 0.5], "f")}
    config = config.model_copy(update={"data_files": floats, "streaming": False, "classes": 2})
    assert labels(build(config).open("train")) == [1, -1, "label 0.5; expected 0..1"]
