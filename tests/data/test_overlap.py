"""Validation data that are training data, in part or as a whole, are said."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.tars import data as tars
from tests.support.tars import png, write_tar
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.data import TokenCacheWriter
from vistok.data import overlap as module
from vistok.data.overlap import overlap
from vistok.tokens import Tokens, TokenSpec

SAYS = "validation says little about unseen data: "


def said(**config):
    part = build(validate_part("data", config, "data"))
    return overlap(part.open("train"), part.open("val"))


@pytest.fixture
def images(tmp_path, make_image):
    """Folders of images by name: train 0..3, val 4..5, some (a copy of 1 as `x`, and 9)."""
    for folder, numbers in (("train", range(4)), ("val", (4, 5)), ("some", (9,))):
        (tmp_path / folder / "a").mkdir(parents=True)
        for number in numbers:
            make_image(20 + number, 10, number).save(tmp_path / folder / "a" / f"{number}.png")
    shutil.copy(tmp_path / "train" / "a" / "1.png", tmp_path / "some" / "a" / "x.png")
    os.symlink(tmp_path / "train", tmp_path / "link")
    return tmp_path


def test_folders(images, monkeypatch):
    place = {"kind": "folder", "path": str(images / "train")}
    assert said(**place, val_path=str(images / "val")) is None
    assert said(**place, val_share=0.8) is None
    every = SAYS + "4 of 4 validation files are training files"
    assert said(**place, val_path=str(images / "train")) == every
    assert said(**place, val_path=str(images / "link")) == every
    some = said(**place, val_path=str(images / "some"))
    assert some == (
        SAYS + "1 of 2 validation files that were looked at are copies of training files "
        "(`vistok check` names them)"
    )
    shutil.copytree(images / "train", images / "copy")
    assert "4 of 4 validation files that" in said(**place, val_path=str(images / "copy"))
    monkeypatch.setattr(module, "_MOST_FILES", 3)  # too many to look into
    assert said(**place, val_path=str(images / "copy")) is None
    assert said(**place, val_path=str(images / "link")) == every


def test_files_that_are_gone_or_empty_are_no_copies(images):
    for folder in ("train", "val"):
        (images / folder / "a" / "empty.png").touch()
        os.symlink(images / "nowhere", images / folder / "a" / "gone.png")
    place = {"kind": "folder", "path": str(images / "train"), "val_path": str(images / "val")}
    assert said(**place) is None


def test_shards(tmp_path, make_image):
    for name, numbers in (("a", (0, 1)), ("b", (2, 3)), ("c", (4, 5))):
        rows = [{"image": png(make_image, n), "label": n} for n in numbers]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        write_tar(tmp_path / f"{name}.tar", [(f"{n}.png", png(make_image, n)) for n in numbers])
    train = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    both = {"kind": "parquet", "train": train}
    assert said(**both, val=str(tmp_path / "c.parquet")) is None
    assert said(**both, val_share=0.5) is None
    found = said(**both, val=str(tmp_path / "*.parquet"))
    assert found == SAYS + "2 of 3 validation shards are training shards"
    shutil.copy(tmp_path / "a.tar", tmp_path / "z.tar")
    for streaming in (True, False):
        part = tars(train=f"{tmp_path}/[ab].tar", val=f"{tmp_path}/z.tar", streaming=streaming)
        found = overlap(part.open("train"), part.open("val"))
        assert "1 of 1 validation shards that were looked at are copies" in found
        part = tars(train=f"{tmp_path}/[ab].tar", val=f"{tmp_path}/c.tar", streaming=streaming)
        assert overlap(part.open("train"), part.open("val")) is None


def test_token_caches(tmp_path):
    spec = TokenSpec(blocks=((2,),), vocab=(8,))

    def cache(name, source):
        facts = {"source": source, "tokenizer": "tiny", "sha256": "1"}
        with TokenCacheWriter(tmp_path / name, spec, 40, **facts) as writer:
            writer.write(Tokens.of(spec, torch.zeros(40, 2, 1, dtype=torch.int64)))
        return str(tmp_path / name)

    train, same = cache("a", {"manifest": "1"}), cache("b", {"manifest": "1"})
    other, unknown = cache("c", {"manifest": "2"}), cache("d", {})
    place = {"kind": "tokens", "path": train}
    assert said(**place, val_path=train) == SAYS + "the validation cache is the training cache"
    assert "made of the training images" in said(**place, val_path=same)
    assert said(**place, val_path=other) is said(**place, val_path=unknown) is None
    assert said(**place, val_share=0.3) is None


def test_photos_and_huggingface_splits(tmp_path, make_image):
    assert said(kind="photos", size=8, count=9, val_count=9) is None  # other views
    datasets = pytest.importorskip("datasets")
    rows = [{"image": png(make_image, n)} for n in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    config = {
        "kind": "huggingface", "path": "parquet", "data_files": str(tmp_path / "a.parquet"),
        "label_column": None, "cache_dir": str(tmp_path / "cache"), "size": 8,
    }  # fmt: skip
    assert said(**config, val_split="train").endswith("training split 'train'")
    assert "'train[6:]' is, or lies in," in said(**config, val_split="train[6:]")
    assert said(**config, train_split="train[:6]", val_split="train[6:]") is None
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    config = {"kind": "huggingface", "path": str(tmp_path / "saved"), "label_column": None}
    assert said(**config).endswith("has no splits, so validation data are training data")
