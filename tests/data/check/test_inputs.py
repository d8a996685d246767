"""`vistok check`: kinds of data by content or `kind=`, and key=value for each of them."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.films import film
from tests.support.tars import png, write_tar
from vistok.config import ConfigError
from vistok.data import TokenCacheWriter
from vistok.data.check.findings import table
from vistok.data.check.run import run_check
from vistok.tokens import Tokens, TokenSpec


@pytest.fixture
def tars(tmp_path, make_image):
    """Two folders of a shard each; an image `input.jpg`, a mask, labels in two places, a text."""
    for name, count in (("one", 4), ("two", 2)):
        members = []
        for key in range(count):
            members += [
                (f"{key}.input.png", png(make_image, key)),
                (f"{key}.mask.png", png(make_image, key + 50)),
                (f"{key}.json", json.dumps({"class": key % 2}).encode()),
                (f"{key}.txt", b"a cat" if key else b" "),
            ]
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "a.tar", members)
    return tmp_path


@pytest.fixture
def parquet(tmp_path, make_image):
    """A folder of a shard with odd column names and classes given by name."""
    rows = [{"photo": png(make_image, n), "name": "dog" if n else "cat"} for n in range(3)]
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows" / "a.parquet")
    return tmp_path / "rows"


def test_tars_are_read_as_the_settings_say(tars):
    place = str(tars / "one" / "a.tar")
    assert run_check([place])["exit_code"] == 2  # neither png is `the` image
    report = run_check([place], ["image=input.png"])
    assert (report["usable"], report["exit_code"], report["classes"]["count"]) == (4, 0, 0)
    report = run_check([place], ["image=input.png", "classes=2", "label_key=class"])
    assert report["classes"]["samples"] == {"0": 2, "1": 2} and report["exit_code"] == 0
    report = run_check([place], ["image=input.png", "classes=[cat]", "label_key=class"])
    assert [item["name"] for item in report["findings"]["labels"]] == ["a.tar/1", "a.tar/3"]
    report = run_check([place], ["image=input.png", "text=txt"])
    assert [item["reason"] for item in report["findings"]["labels"]] == [
        "has no text: .txt member is empty"
    ]
    with pytest.raises(ConfigError, match="unknown key"):
        run_check([place], ["photo=input.png"])


def test_folders_of_shards_take_settings(tars, parquet):
    report = run_check([str(tars)], ["kind=webdataset", f"train={tars}/*/a.tar", "image=mask.png"])
    assert report["usable"] == 6
    report = run_check([str(tars / "two")], ["image=mask.png"])
    assert report["usable"] == 2 and report["width"]["max"] == 12
    report = run_check([str(parquet)], ["image_column=photo", "label_column=name"])
    assert report["classes"]["samples"] == {"cat": 1, "dog": 2} and report["exit_code"] == 0
    report = run_check([str(parquet)], ["image_column=photo", "label_column=null"])
    assert report["unlabeled"] == 3 and report["exit_code"] == 0


def test_folders_of_clips_take_settings(tmp_path):
    film(tmp_path / "clips" / "a" / "1.mp4", count=12)
    film(tmp_path / "clips" / "a" / "2.mkv", count=5)
    report = run_check([str(tmp_path / "clips")], ["frames=12"])
    assert [item["name"] for item in report["findings"]["unreadable"]] == ["a/2.mkv"]
    assert run_check([str(tmp_path / "clips")], ["frames=5"])["exit_code"] == 0


def test_one_image_takes_settings(tmp_path, make_image):
    make_image().save(tmp_path / "x.png")
    assert run_check([str(tmp_path / "x.png")], ["size=8"])["usable"] == 1
    with pytest.raises(ConfigError, match="sizes: unknown key"):
        run_check([str(tmp_path / "x.png")], ["sizes=8"])


def test_settings_alone_are_a_config():
    report = run_check([], ["kind=photos", "size=16", "count=3", "val_count=2"])
    assert report["samples"] == 5 and report["width"]["max"] == 16
    with pytest.raises(ConfigError, match="nothing to scan"):
        run_check([], ["size=16"])
    with pytest.raises(ConfigError, match="tars"):
        run_check(["x"], ["kind=tars"])


def test_all_kinds_of_a_folder_are_scanned_and_the_rest_is_named(tars, parquet, make_image):
    film(tars / "1.mp4", count=20)
    (tars / "notes.txt").write_text("no data", "utf-8")
    shutil.rmtree(tars / "two")
    report = run_check([str(tars / "one"), str(parquet)], [])
    assert report["exit_code"] == 2  # no `image` column, no single image
    places = " ".join(item["name"] for item in report["findings"]["shards"])
    assert "a.tar" in places and "a.parquet" in places
    for number in range(2):
        make_image(seed=number).save(tars / f"{number}.png")
        (tars / f"{number}.TIFF").write_bytes(b"II*\0")
    report = run_check([str(tars)])  # now a folder of images
    assert report["usable"] == 2 and report["left_out"] == 6
    assert report["left_out_endings"] == {
        ".tiff": 2, ".tar": 1, ".parquet": 1, ".mp4": 1, ".txt": 1
    }  # fmt: skip
    assert report["findings"]["unread"] == [{"name": ".tiff", "reason": "2 files"}]
    assert report["exit_code"] == 1 and "2 .tiff, 1 .mp4, 1 .parquet" in table(report)


def test_shards_that_contradict_each_other_are_found(parquet, make_image):
    rows = [{"photo": png(make_image, 9), "name": 3}]
    pq.write_table(pa.Table.from_pylist(rows), parquet / "b.parquet")
    report = run_check([str(parquet)], ["image_column=photo", "label_column=name"])
    (finding,) = report["findings"]["shards"]
    assert "b.parquet: the column 'name' holds numbers, but in" in finding["reason"]
    assert report["usable"] == 4


def test_a_huggingface_folder_is_scanned_at_its_true_size(tmp_path, make_image):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"image": {"bytes": png(make_image, n), "path": None}, "label": n % 3} for n in range(4)
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_list(rows, features=features)
    data.save_to_disk(str(tmp_path / "saved"))
    report = run_check([str(tmp_path / "saved")], ["classes=[a, b]", "size=4"])
    assert (report["width"]["max"], report["height"]["max"]) == (12, 10)
    assert report["classes"]["samples"] == {"a": 2, "b": 1}
    (trouble,) = report["findings"]["labels"]
    assert "label 2; expected 0..1" in trouble["reason"] and report["formats"] == {"PNG": 4}


def test_a_token_cache_is_scanned_and_a_run_of_them(tmp_path):
    import torch

    spec = TokenSpec(blocks=((4,),), vocab=(8,))
    facts = {"source": {}, "tokenizer": "tiny", "sha256": "1", "classes": ("a", "b")}
    with TokenCacheWriter(tmp_path / "c", spec, 3, **facts) as writer:
        codes = torch.arange(12).view(3, 4, 1) % 8
        writer.write(Tokens.of(spec, codes), torch.tensor([0, 1, -1]))
    shutil.copytree(tmp_path / "c", tmp_path / "run" / "train")
    for place in ("c", "run"):
        report = run_check([str(tmp_path / place)])
        assert report["usable"] == 3 and report["classes"]["samples"] == {"a": 1, "b": 1}
    assert [item["name"] for item in report["findings"]["labels"]] == ["train[2]"]
