"""An address that a run's file names is opened only if it is typed too."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from vistok.config import ConfigError, validate_part
from vistok.config.overrides import parse
from vistok.data.addresses import addresses, check_addresses
from vistok.data.base import DataError

URL = "http://127.0.0.1:9/a.tar"
REMOTE = [
    ({"kind": "webdataset", "train": URL}, {"train": (URL,)}),
    (
        {"kind": "webdataset", "val": ["a.tar", "s3://b/{0..3}.tar"]},
        {"val": ("s3://b/{0..3}.tar",)},
    ),
    ({"kind": "huggingface", "path": "hf:owner/name"}, {"path": ("hf:owner/name",)}),
    (
        {"kind": "huggingface", "path": "parquet", "data_files": {"train": ["gs://b/x.parquet"]}},
        {"data_files": ("gs://b/x.parquet",)},
    ),
    ({"kind": "folder", "path": "my/images"}, {}),
    ({"kind": "webdataset", "train": "file:///x/a.tar"}, {}),
    ({"kind": "photos", "size": 8, "caption": "a photo: {class}"}, {}),
]


@pytest.mark.parametrize(("data", "found"), REMOTE, ids=lambda value: str(value)[:40])
def test_what_is_on_other_machines(data, found, fails):
    config = validate_part("data", data)
    assert addresses(config) == found
    if not found:
        check_addresses(config, "theirs/config.yaml")
        return
    ((key, texts),) = found.items()
    with fails(
        ConfigError, rf"theirs/config.yaml: data.{key} names .*'data.{key}=.*to the command"
    ):
        check_addresses(config, "theirs/config.yaml")
    with fails(ConfigError, "at your word"):
        check_addresses(config, "theirs/config.yaml", {"flip": False, "val": "s3://other/a.tar"})
    typed = parse([f"data.{key}=[{', '.join(map(json.dumps, texts))}]"])["data"]
    check_addresses(config, "theirs/config.yaml", typed)


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A run folder whose config names an address; whatever would open it fails the test."""

    def opened(*_args, **_more):
        raise AssertionError("the address was opened")

    monkeypatch.setattr("fsspec.open", opened)
    monkeypatch.setattr("fsspec.core.url_to_fs", opened)
    monkeypatch.chdir(tmp_path)
    from tests.support.training import TINY

    folder = tmp_path / "theirs"
    folder.mkdir()
    tree = {
        **TINY,
        "data": {"kind": "webdataset", "train": URL, "val": URL, "count": 9, "size": 32},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder


def test_no_command_opens_an_address_of_a_run(theirs, fails, monkeypatch):
    from vistok.data.check.inputs import open_inputs
    from vistok.eval.systems.runs import Run, data_config
    from vistok.train.__main__ import main

    words = "theirs/config.yaml: data.train names http://127.0.0.1:9/a.tar; an address"
    for more in ([], ["--dry-run"], ["data.val=other.tar"]):
        done = CliRunner().invoke(main, ["theirs/config.yaml", *more])
        assert done.exit_code == 1 and words in done.output and done.output.count("\n") == 1
    cache = {"task": {"kind": "cache", "tokenizer": "theirs"}}
    Path("cache.yaml").write_text(yaml.safe_dump(cache))
    done = CliRunner().invoke(main, ["cache.yaml", "--dry-run"])
    assert done.exit_code == 1 and words in done.output
    with fails(ConfigError, words):
        open_inputs(["theirs/config.yaml"])
    config = yaml.safe_load((theirs / "config.yaml").read_text())
    run = Run("theirs", Path("theirs"), theirs, "tokenizer", {}, "", config)
    with fails(ConfigError, words):
        data_config(run, {"flip": False})
    own = {"train": URL, "val": "own.tar"}
    assert data_config(run, own).val == "own.tar"
    assert data_config(run, {"kind": "photos", "size": 32}).kind == "photos"
    assert data_config(None, {"kind": "webdataset", "val": URL}).val == URL


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(tmp_path, monkeypatch, fails):
    datasets = pytest.importorskip("datasets")
    from vistok.config.registry import build

    asked = []
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, *_, **__: asked.append(path))
    for path in ("my/imagse", "imagse", str(tmp_path / "none")):
        with fails(DataError, f"{path}: cannot be opened: no such folder; .*path=hf:"):
            build(validate_part("data", {"kind": "huggingface", "path": path})).open("train")
    assert asked == []
    with pytest.raises(DataError):  # the library's answer is None here
        build(validate_part("data", {"kind": "huggingface", "path": "hf:my/imagse"})).open("train")
    assert asked == ["my/imagse"]
