"""Wildcards in names of files: what exists is taken by its name, in every place that globs."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.tars import data, png, write_tar
from vistok.config.registry import build
from vistok.data import FolderConfig, HuggingFaceConfig, ParquetConfig
from vistok.data.check.run import run_check
from vistok.data.kinds import parquet_shards, tar_shards
from vistok.data.kinds.patterns import literal_part, matches

NAMES = ("set [v1]/a.x", "set [v1]/b.x", "set v/a.x", "deep/set [v1]/q [2].x", "deep/set [v1]/q2.x")


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name in (*NAMES, "star*/a.x", "star-1/b.x", "r{0..1}/c0.x", "r{0..1}/c1.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a [folder].x").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("set [v1]/a.x", ["set [v1]/a.x"]),
        ("set [v1]/*.x", ["set [v1]/a.x", "set [v1]/b.x"]),
        ("set [v1]/[ab].x", ["set [v1]/a.x", "set [v1]/b.x"]),
        ("set [v9]/*.x", ["set v/a.x"]),  # no such name: a pattern
        ("*/set [v1]/*.x", ["deep/set [v1]/q [2].x", "deep/set [v1]/q2.x"]),
        ("deep/set [v1]/q [2].x", ["deep/set [v1]/q [2].x"]),
        ("deep/**/q?.x", ["deep/set [v1]/q2.x"]),
        ("**/q2.x", ["deep/set [v1]/q2.x"]),
        ("set v/**/a.x", ["set v/a.x"]),
        ("star*/a.x", ["star*/a.x"]),
        ("star*/b.x", []),
        ("a [folder].x", []),  # a folder is no file
        ("gone [v1]/*.x", []),
        ("./set v//a.x", ["./set v/a.x"]),
    ],
)
def test_what_exists_is_literal(files, pattern, found):
    assert matches(pattern) == found
    whole = [str(files / name) for name in found if not name.startswith("./")]
    if not pattern.startswith("./"):
        assert matches(str(files / pattern)) == whole


def test_the_part_that_exists(files):
    assert literal_part("set [v1]/*.x") == ("set [v1]", "*.x")
    assert literal_part("set [v1]/a.x") == ("set [v1]/a.x", "")
    assert literal_part(f"{files}/gone/a.x") == (str(files), "gone/a.x")
    assert literal_part("gone") == ("", "gone")


def test_home_and_order(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files / "set [v1]"))
    assert [os.path.basename(name) for name in matches("~/*.x")] == ["a.x", "b.x"]


@pytest.fixture
def shards(tmp_path, make_image):
    """A parquet and two tars of three samples in `set [v1]`, and images in `pictures [v1]/a`."""
    place = tmp_path / "set [v1]"
    place.mkdir()
    rows = [{"image": png(make_image, n), "label": n} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), place / "train-0.parquet")
    for shard in range(2):
        write_tar(place / f"s-{shard}.tar", [(f"{n}.png", png(make_image, n)) for n in range(3)])
    images = tmp_path / "pictures [v1]" / "a"
    images.mkdir(parents=True)
    make_image().save(images / "1.png")
    return place


@pytest.mark.parametrize("name", ["train-0.parquet", "train-*.parquet", "train-[0-9].parquet"])
def test_parquet_below_brackets(shards, name):
    assert len(build(ParquetConfig(train=f"{shards}/{name}", size=8)).open("train")) == 3
    assert run_check([f"{shards}/{name}"])["usable"] == 3


@pytest.mark.parametrize("name", ["s-0.tar", "s-*.tar", "s-[0-9].tar", "s-{0..1}.tar"])
def test_tars_below_brackets(shards, name):
    count = 3 if name == "s-0.tar" else 6
    assert data(train=f"{shards}/{name}").open("train").count == count
    assert len(data(val=f"{shards}/{name}").open("val")) == count
    assert run_check([f"{shards}/{name}"])["usable"] == count


def test_folders_below_brackets(shards):
    pictures = shards.parent / "pictures [v1]"
    assert len(build(FolderConfig(path=str(pictures))).open("train")) == 1
    assert run_check([str(pictures)])["usable"] == 1
    report = run_check([str(shards)])  # the shards of both kinds
    assert report["usable"] == 9 and report["left_out"] == 0


@pytest.mark.parametrize("name", ["train-0.parquet", "train-*.parquet"])
def test_huggingface_below_brackets(shards, tmp_path, name):
    pytest.importorskip("datasets")
    config = HuggingFaceConfig(
        path="parquet",
        data_files={"train": f"{shards}/{name}"},
        classes=3,
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(build(config).open("train")) == 3


def test_addresses_with_brackets(shards):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe(f"/b [v1]/{path.name}", path.read_bytes())
    try:
        place = "memory://b [v1]"
        for name, count in (("s-0.tar", 1), ("s-*.tar", 2), ("s-[01].tar", 2), ("s-?.tar", 2)):
            found = tar_shards.find(f"{place}/{name}")
            assert [n.rpartition("/")[2] for n in found] == ["s-0.tar", "s-1.tar"][:count]
            assert len(data(val=f"{place}/{name}").open("val")) == 3 * count
        memory.pipe("/b [v1]/s-[01].tar", (shards / "s-0.tar").read_bytes())
        assert tar_shards.find(f"{place}/s-[01].tar") == [f"{place}/s-[01].tar"]
        memory.rm_file("/b [v1]/s-[01].tar")
    finally:
        for path in shards.glob("*.tar"):
            memory.rm_file(f"/b [v1]/{path.name}")


def test_what_was_reported(shared):
    place = shared / "reported" / "brackets"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    (shard,) = parquet_shards.find(f"{place}/parquet [v1]/*.parquet")
    assert shard == place / "parquet [v1]" / "train-00000.parquet"
    assert tar_shards.find(f"{place}/tars [v1]/*.tar") == [f"{place}/tars [v1]/shard-000000.tar"]
    usable = {"parquet [v1]": 24, "tars [v1]": 16, "pictures [v1]": 8, "set [v1]": 40}
    assert {name: run_check([str(place / name)])["usable"] for name in usable} == usable
