"""Texts of samples: members, columns, captions; through workers, streams and resumes."""

import io
import json
import logging

import pytest
import torch
from PIL import Image

from tests.support.tars import write_tar
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import (
    BadSample,
    DataError,
    EvalLoader,
    FolderConfig,
    HuggingFaceConfig,
    Order,
    ParquetConfig,
    PhotosConfig,
    StreamLoader,
    TrainLoader,
    VideoConfig,
    WebDatasetConfig,
    to_device,
)
from vistok.data.decode.crops import open_crops

CAPTION = "A photo of a {class}."


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (value, 0, 0)).save(file, "png")
    return file.getvalue()


def tar(folder, name, first, count, texts=None):
    """A shard of red images; sample i's text is `Red i` unless `texts` says otherwise."""
    members = []
    for i in range(first, first + count):
        text = (texts or {}).get(i, f" Red {i}é\n".encode())
        members += [(f"{i:03d}.png", png(i)), (f"{i:03d}.cls", b"%d" % (i % 2))]
        members += [] if text is None else [(f"{i:03d}.txt", text)]
    return write_tar(folder / name, members)


def tars(folder, **options):
    config = {"train": f"{folder}/*.tar", "val": f"{folder}/*.tar", "size": 8, **options}
    return build(validate(WebDatasetConfig, {"flip": False, **config}))


def told(batch) -> bool:
    """Whether each text is that of its image."""
    reds = [int(pixels[0, 0, 0]) for pixels in batch.pixels]
    return batch.text == tuple(f"Red {red}é" for red in reds)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_carries_texts_and_goes_on_with_them(tmp_path, workers):
    for shard in range(3):
        tar(tmp_path, f"{shard}.tar", 10 * shard, 6)
    stream = tars(tmp_path, text="txt", shuffle=4).open("train")
    assert stream.texts and stream.record()["text"] == {"member": "txt"}
    whole, places = [], []
    loader = StreamLoader(stream, 4, 0, steps=6, lanes=2, workers=workers)
    for batch in loader:
        whole.append(batch)
        places.append(json.loads(json.dumps(loader.positions)))
    assert all(told(batch) for batch in whole)
    more = {"start_step": 3, "positions": places[2]}
    rest = list(StreamLoader(stream, 4, 0, steps=6, lanes=2, workers=workers, **more))
    assert [batch.text for batch in rest] == [batch.text for batch in whole[3:]]


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_by_index_carry_texts(tmp_path, workers):
    tar(tmp_path, "a.tar", 0, 10)
    dataset = tars(tmp_path, text="TXT", streaming=False).open("train")
    order = Order(10, 4, 0)
    whole = list(TrainLoader(dataset, order, steps=6, workers=workers))
    rest = list(TrainLoader(dataset, order, steps=6, start_step=4, workers=workers))
    assert [b.text for b in rest] == [b.text for b in whole[4:]]
    assert all(told(batch) for batch in whole)
    loaded = list(EvalLoader(dataset, 4, workers=workers))
    assert [len(b.text) for b in loaded] == [4, 4, 2] and all(map(told, loaded))
    assert to_device(loaded[0], "cpu").text == loaded[0].text


def test_a_sample_without_its_text_is_a_bad_sample(tmp_path, caplog):
    bad = {1: None, 2: b" \n", 4: b"\xff\xfe\xfd"}
    tar(tmp_path, "a.tar", 0, 6, bad)
    dataset = tars(tmp_path, text="txt").open("val")
    reasons = {}
    for index in range(6):
        try:
            assert dataset[index].text == f"Red {index}é"
        except BadSample as error:
            reasons[index] = str(error)
    assert sorted(reasons) == [1, 2, 4]
    assert "a.tar/001: has no text: no .txt member" in reasons[1]
    assert "has no text: .txt member is empty" in reasons[2]
    assert "not UTF-8" in reasons[4]
    stream = tars(tmp_path, text="txt", shuffle=0).open("train")
    with caplog.at_level(logging.WARNING):
        loader = StreamLoader(stream, 3, 0, steps=1, lanes=1, max_bad_share=1.0)
        assert next(iter(loader)).text == ("Red 0é", "Red 3é", "Red 5é")
    assert "001: has no text" in caplog.text
    plain = tars(tmp_path).open("val")  # where texts are not asked for, nobody misses them
    assert not plain.texts and plain[1].text is None and "text" not in plain.record()


def test_texts_come_from_one_place(fails):
    with fails(ConfigError, "text=txt and caption=.*drop one"):
        validate(WebDatasetConfig, {"train": "a.tar", "text": "txt", "caption": "x"})
    with fails(ConfigError, "text_column=words and caption=.*drop one"):
        validate(HuggingFaceConfig, {"path": "a", "text_column": "words", "caption": "x"})
    with fails(ConfigError, r"'\{name\}' is no known placeholder"):
        validate(PhotosConfig, {"caption": "A {name}."})


def test_a_caption_names_the_class_wherever_there_are_classes(tmp_path, tree):
    folder = {"path": str(tree), "size": 8, "caption": CAPTION}
    dataset = build(validate(FolderConfig, folder)).open("train")
    texts = {dataset[i].text for i in range(len(dataset))}
    assert texts == {"A photo of a a.", "A photo of a b."}
    assert dataset.record()["text"] == {"caption": CAPTION}
    tar(tmp_path, "a.tar", 0, 4)
    named = tars(tmp_path, classes=("cat", "dog"), caption=CAPTION)
    assert named.open("val")[1].text == "A photo of a dog."
    stream = named.open("train")
    assert stream.texts
    batch = next(iter(StreamLoader(stream, 4, 0, steps=1, lanes=1)))
    assert sorted(batch.text) == ["A photo of a cat."] * 2 + ["A photo of a dog."] * 2
    photos = build(validate(PhotosConfig, {"size": 8, "caption": "{class}, {class}"})).open("val")
    assert photos[0].text == ", ".join([photos.classes[photos[0].label]] * 2)
    crops = open_crops(validate(PhotosConfig, {"size": 8, "caption": CAPTION}), "val", 2, 1.1)
    assert crops.texts and crops[1].text == crops[0].text == CAPTION.format(**{"class": _of(crops)})


def _of(dataset) -> str:
    return dataset.classes[dataset[0].label]


def test_a_caption_without_the_class_needs_no_labels(tmp_path, tree, fails):
    tar(tmp_path, "a.tar", 0, 2)
    assert tars(tmp_path, caption="").open("val")[0].text == ""
    with fails(DataError, "names the class, and this data set has no classes"):
        tars(tmp_path, caption=CAPTION).open("val")
    Image.new("RGB", (9, 9)).save(tree / "loose.png")
    dataset = build(validate(FolderConfig, {"path": str(tree), "caption": CAPTION})).open("train")
    with fails(BadSample, "loose.png: has no label, which data.caption="):
        dataset[dataset.names.index("loose.png")]


def test_parquet_rows_have_captions_decoded_or_kept(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"image": [{"bytes": png(i), "path": None} for i in range(3)], "label": [1, 0, -1]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    for cache in (False, True):
        options = {"train": f"{tmp_path}/a.parquet", "size": 8, "cache": cache}
        config = validate(ParquetConfig, {**options, "caption": CAPTION})
        dataset = build(config).open("train")
        assert [dataset[i].text for i in (0, 1)] == ["A photo of a 1.", "A photo of a 0."]
        with pytest.raises(BadSample, match="has no label"):
            dataset[2]


def test_clips_have_captions(tmp_path):
    frames = [Image.new("RGB", (9, 9), (60 * i, 0, 0)) for i in range(4)]
    (tmp_path / "wave").mkdir()
    frames[0].save(tmp_path / "wave/a.gif", save_all=True, append_images=frames[1:], duration=100)
    options = {"path": str(tmp_path), "size": 8, "frames": 2, "caption": CAPTION}
    dataset = build(validate(VideoConfig, {**options, "decoder": "pyav"})).open("train")
    batch = next(iter(EvalLoader(dataset, 1)))
    assert batch.text == ("A photo of a wave.",) and batch.pixels.ndim == 5


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_texts(tmp_path, fails, streaming):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "words": datasets.Value("string"), "n": datasets.Value("int8")}
    )
    words = ["one", None, "three", ""]
    images = [{"bytes": png(i), "path": None} for i in range(4)]
    table = datasets.Dataset.from_dict({"image": images, "words": words, "n": range(4)}, features)
    table.to_parquet(tmp_path / "a.parquet")

    def opened(**options):
        files = {"train": f"{tmp_path}/a.parquet"}
        base = {"path": "parquet", "data_files": files, "cache_dir": str(tmp_path / "cache")}
        base |= {"size": 8, "label_column": None, "count": 4, "streaming": streaming, "shuffle": 0}
        return build(validate(HuggingFaceConfig, {**base, **options})).open("train")

    dataset = opened(text_column="words")
    assert dataset.record()["text"] == {"column": "words"}
    if streaming:
        loader = StreamLoader(dataset, 2, 0, steps=1, lanes=1, max_bad_share=1.0)
        assert next(iter(loader)).text == ("one", "three")
    else:
        assert [dataset[i].text for i in (0, 2)] == ["one", "three"]
        for index, reason in ((1, "has no text: no column 'words'"), (3, "'words' is empty")):
            with fails(BadSample, reason):
                dataset[index]
        with fails(BadSample, "column 'n' holds int; expected a text"):
            opened(text_column="n")[0]
    with fails(DataError, "no column 'caption'.*text_column"):
        opened(text_column="caption")


def test_batches_without_texts_have_none():
    dataset = build(PhotosConfig(size=8, count=8)).open("train")
    (batch,) = TrainLoader(dataset, Order(8, 4, 0), steps=1)
    assert batch.text is None and isinstance(batch.pixels, torch.Tensor)
