"""A cache is of the data of its tokenizer's run, and an empty one is in nobody's way."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from tests.support.caches import change_meta
from tests.support.training import TINY, cache_tree
from vistok.config import ConfigError, read_yaml, validate
from vistok.data.base import DataError
from vistok.data.kinds.tokens import CachedTokens, CachedTokensConfig
from vistok.data.token_cache import TokenCache
from vistok.train.cache_command import cache, config_of
from vistok.train.config import TrainConfig
from vistok.train.jobs.run_data import with_run_data

DATA = {"kind": "photos", "size": 32, "count": 100, "val_count": 16}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A run of the user's own, in runs/mine."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**TINY, "data": {**DATA, "seed": 7}}))
    return folder


@pytest.mark.parametrize(
    "words", [["name=mine"], ["task.tokenizer=runs/mine"], ["task.tokenizer=runs/mine/model"]]
)
def test_the_shipped_cache_takes_the_data_of_the_tokenizers_run(mine, words):
    tree, source = with_run_data(read_yaml("quickstart/tokens", [*words, "data.val_count=9"]))
    assert source.resolve() == mine / "config.yaml"
    config = validate(TrainConfig, tree)
    assert (config.data.kind, config.data.seed, config.data.val_count) == ("photos", 7, 9)
    assert config.task.tokenizer.startswith("runs/mine")


def test_the_shipped_configs_follow_the_name_of_the_run():
    tokens = validate(TrainConfig, read_yaml("quickstart/tokens", ["name=0042"]))
    generator = validate(TrainConfig, read_yaml("quickstart/generator", ["name=0042"]))
    assert (tokens.task.tokenizer, tokens.folder) == ("runs/0042", "runs/0042/tokens")
    assert f"{generator.data.path}/tokens" == tokens.folder and generator.data.val_path is None
    assert generator.folder == "runs/0042/generator"


def test_data_that_are_said_stay_as_they_are(mine):
    for tree in (
        read_yaml("quickstart/tokens", ["name=mine", "data={kind: folder, path: x, size: 32}"]),
        read_yaml("quickstart/generator", ["name=mine"]),
        {**TINY, "data": {"size": 8}},
    ):
        assert with_run_data(tree) == (tree, None)


def test_a_tokenizer_without_a_run_needs_data(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    tree = read_yaml("quickstart/tokens")
    assert with_run_data(tree) == (tree, None)
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    (tmp_path / "runs/quickstart/config.yaml").write_text("name: x\n")
    with fails(ConfigError, "runs/quickstart/config.yaml: it names no data; give .*folder"):
        with_run_data(tree)


def test_an_empty_cache_is_in_nobodys_way_and_a_cache_says_what_it_holds(run, cached, capsys):
    """Begun with other data and never filled; then the right command."""
    folder, _ = cached
    wrong = {**cache_tree(folder, limit=9), "data": {**TINY["data"], "seed": 5}}
    place = run(wrong, "again")
    for split in ("train", "val"):
        change_meta(place / split, written=0)
        (place / split / "latents.npy").write_bytes(b"of other options")
    capsys.readouterr()
    run(cache_tree(folder, limit=5), "again")
    cache = TokenCache(place / "train")
    assert len(cache) == 5 and cache.meta["source"]["kind"] == "photos"
    assert not (place / "train/latents.npy").exists()
    said = capsys.readouterr().out
    assert "train: 5 samples of photos" in said and "the limit leaves out 95" in said
    assert "val: 16 samples of photos" in said


def test_the_cache_command_takes_data_and_folder_of_the_run(mine, fails):
    config = config_of("runs/mine", ["limit=9", "batch=4", "data.val_count=3", "latents=true"])
    assert config.task.model_dump(include={"tokenizer", "limit", "latents"}) == {
        "tokenizer": "runs/mine",
        "limit": 9,
        "latents": True,
    }
    assert (config.data.seed, config.data.val_count, config.batch_size) == (7, 3, 4)
    assert config.folder == "runs/mine/tokens"
    assert config_of("runs/mine/model", []).folder == "runs/mine/tokens"
    with fails(ConfigError, "vistok cache: lmit: unknown key, value 3; did you mean 'limit'"):
        config_of("runs/mine", ["lmit=3"])
    with fails(ConfigError, "titok-l32: it names no data of its own; say .* data.kind=folder"):
        config_of("titok-l32", [])
    with fails(ConfigError, "runs/mien: no such file or folder .*did you mean runs/mine"):
        config_of("runs/mien", ["data.kind=photos"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("runs/mine")  # the current folder has a name, too
        assert [config_of(name, []).name for name in (".", "model")] == ["mine", "mine"]


def test_a_cache_by_the_command_is_the_data_of_a_generator_by_one_key(cached, tmp_path, fails):
    folder, _ = cached
    out = tmp_path / "mine" / "tokens"
    words = [str(folder), f"out={out}", "limit=5", "batch=3", "device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        result = CliRunner().invoke(cache, words)
        assert result.exit_code == 0, result.output
        assert f"data.path={out}" in result.stdout.splitlines()[-1]  # the next command
        again = CliRunner().invoke(cache, [*words, "limit=6"])
    assert again.exit_code == 1 and "begun with count=5, now count=6" in again.stderr
    data = CachedTokens(CachedTokensConfig(path=str(out)))
    assert (len(data.open("train")), len(data.open("val"))) == (5, 16)
    run = CachedTokens(CachedTokensConfig(path=str(out.parent)))
    assert len(run.open("train")) == 5
    alone = CachedTokens(CachedTokensConfig(path=str(out / "train")))
    with fails(DataError, "no validation split"):
        alone.open("val")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text("name: bare\n")
    with fails(DataError, "no cached tokens in .*; write them first: vistok cache .*bare"):
        CachedTokens(CachedTokensConfig(path=str(tmp_path / "bare"))).open("train")
