"""Any name opens a model: runs, saved folders, hub ids, released names, official files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.official import official
from vistok import pretrained
from vistok.config import UserError, validate_part
from vistok.config.registry import build
from vistok.generators import Generator, load_generator
from vistok.storage.origin import Origin
from vistok.tokenizer import Tokenizer


@pytest.fixture
def saved(make_tokenizer, tmp_path, monkeypatch):
    """The current folder: a run `runs/a` and its generator `runs/b`."""
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained("runs/a/model")
    config = {"kind": "autoregressive", "transformer": {"width": 16, "depth": 1, "heads": 2}}
    generator = build(validate_part("generator", config), tokenizer.spec())
    generator.save_pretrained("runs/b/model")
    return tokenizer


@pytest.fixture
def titok(tmp_path):
    """(folder of a one-stage TiTok in its official layout, its state)."""
    _, state, config = official("titok-pixel")
    folder = tmp_path / "titok"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder, state


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return set(mine) == set(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_runs_and_saved_folders(saved, fails):
    for name in ("runs/a", "runs/a/model", Path("runs/a"), "./runs/a"):
        found = pretrained.open(name)
        assert isinstance(found, Tokenizer) and same(found, saved) and not found.training
    assert isinstance(pretrained.open("runs/b", expect="generator"), Generator)
    with fails(UserError, "runs/a: not a generator but a tokenizer"):
        pretrained.open("runs/a", expect="generator")
    with fails(UserError, "runs/b: not a tokenizer but a generator; name the tokenizer"):
        pretrained.open("runs/b", expect="tokenizer")


def test_a_class_opens_all_that_open_does(saved, titok, fails):
    folder, state = titok
    for name in ("runs/a", "runs/a/model", Path("runs/a")):
        assert same(Tokenizer.from_pretrained(name), saved)
    for name in (folder, folder / "model.safetensors"):
        back, _ = pretrained.to_official(Tokenizer.from_pretrained(name))
        assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    for load in (Generator.from_pretrained, load_generator):
        assert isinstance(load("runs/b"), Generator) and isinstance(load("runs/b/model"), Generator)
        with fails(UserError, "runs/a: not a generator but a tokenizer"):
            load("runs/a")
    with fails(UserError, "runs/b: not a tokenizer but a generator; name the tokenizer"):
        Tokenizer.from_pretrained("runs/b")
    with fails(UserError, "not a generator but a tokenizer"):
        load_generator(folder)
    with fails(UserError, "runs/a: revision=v1 is for models of the hub"):
        Tokenizer.from_pretrained("runs/a", revision="v1")
    with fails(UserError, "dtype=int8: expected fp32, bf16 or fp16"):
        Tokenizer.from_pretrained("runs/a", dtype="int8")
    with fails(UserError, "device=cda: not usable here .*expected cpu, or cuda"):
        Tokenizer.from_pretrained("runs/a", device="cda")
    assert Tokenizer.from_pretrained("runs/a", map_location="meta").config == saved.config


def test_a_generator_that_holds_parts_of_a_tokenizer(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer("scales")
    config = {"kind": "next_scale", "transformer": {"width": 16, "depth": 1, "heads": 2}}
    parts = validate_part("generator", config)
    generator = build(parts, tokenizer.spec(), tokenizer.quantizer)
    generator.save_pretrained(tmp_path)
    assert same(load_generator(tmp_path), generator)


def test_official_files_and_folders(titok, monkeypatch, tmp_path):
    folder, state = titok
    torch.save(state, folder / "titok.bin")
    monkeypatch.chdir(tmp_path)
    for name in (folder, folder / "model.safetensors", folder / "titok.bin", "titok"):
        found = pretrained.open(name, expect="tokenizer")
        back, _ = pretrained.to_official(found)
        assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    kept = pretrained.saved_folder("titok")
    assert kept == Path("runs/released/titok") and same(pretrained.open(kept), found)
    assert Origin.load(kept).family == "titok"
    assert pretrained.saved_folder(kept) == kept


def test_released_names_and_hub_ids(saved, titok, monkeypatch, tmp_path, fails):
    """The hub is asked for what says so; here it answers from local folders."""
    hub = {"someone/model": tmp_path / "runs/a/model"}
    release = pretrained.release_of("titok-l32")[1]
    hub[release.hub] = titok[0]
    asked = []

    def snapshot_download(name, **options):
        asked.append(name)
        if name not in hub:
            raise OSError(f"no {name}")
        return str(hub[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert same(pretrained.open("hf:someone/model"), saved)
    for name in ("titok-l32", f"hf:{release.hub}"):
        tokenizer = pretrained.open(name)
        assert tokenizer.origin.release == "titok-l32" and tokenizer.spec().length == 4
    with fails(UserError, "hf:someone/nothing: the hub does not give it"):
        pretrained.open("hf:someone/nothing")
    assert asked == ["someone/model", release.hub, release.hub, "someone/nothing"]
    shutil.rmtree(titok[0])
    hub.clear()
    with fails(UserError, "titok-l32: the hub does not give .*by hand"):
        pretrained.open("titok-l32")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nothing", "no such file or folder"),
        ("/nothing/at/all", "there is no 'nothing' in /"),
        ("~/no-such-model-here", "no such file or folder"),
        ("~nobody-of-this-name/model", "no such file or folder"),
        ("runs/aa", "there is no 'aa' in runs.; did you mean runs/a"),
        ("other/weights.bin", "no such file or folder"),
        ("weights.safetensors", "no such file or folder"),
        ("there/nothing", "there is no 'nothing' in there"),
        ("someone/model", "a model of the hub is written hf:someone/model"),
        ("yucornetto/tokenizer_titok_l32_imagenet", "no such file or folder .*written hf:yuco"),
        ("rnus/a", "there is no .rnus. in .*; did you mean runs"),
        ("a/b/c", "there is no 'a' in ."),
        ("42", "unknown release '42'.*nor is there a file or folder of that name"),
        ("ther", r"of that name \(is it ./there\?\)"),
        ("hf:", "hf:: not an id of the hub; expected hf:owner/name"),
        ("hf:../x", "not an id of the hub"),
        ("hf:a/b/c", "not an id of the hub"),
        ("titok-l33", "unknown release 'titok-l33'; did you mean 'titok-l32'"),
        ("runs/empty", "no model.safetensors in it or in its 'model' folder; expected a run"),
        ("runs/begun", "no model/config.json; training writes it when it finishes"),
        ("text.md", "a file that holds no weights"),
        ("runs/other", "runs/other/config.json: kind 'resnet9' is neither a tokenizer nor a gen"),
    ],
)
def test_a_local_name_is_never_asked_of_the_hub(saved, monkeypatch, fails, name, words):
    def never(*args, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", never)
    Path("there").mkdir()
    Path("text.md").write_text("text")
    Path("runs/empty").mkdir()
    Path("runs/begun").mkdir()
    Path("runs/other").mkdir()
    Path("runs/other/config.json").write_text('{"kind": "resnet9"}')
    for file in ("config.yaml", "metrics.jsonl"):
        Path("runs/begun", file).write_text("")
    with fails(UserError, words):
        pretrained.open(name)
    for load in (Tokenizer.from_pretrained, Generator.from_pretrained, pretrained.load):
        with fails(UserError, re.escape(name.strip(".~/"))):
            load(name)


def test_two_official_folders_of_one_name_are_two_conversions(titok, monkeypatch, tmp_path):
    folder, state = titok
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other/titok"
    shutil.copytree(folder, other)
    save_file({key: tensor + 1 for key, tensor in state.items()}, other / "model.safetensors")
    first, second = (pretrained.saved_folder(place) for place in (folder, other))
    assert first == Path("runs/released/titok") and second.name.startswith("titok-")
    for place, kept in ((folder, first), (other, second)):
        assert pretrained.saved_folder(place) == kept
        assert same(pretrained.open(kept), pretrained.open(place))
