"""`vistok list`, completion in the shell, and the table of sizes that both read."""

from __future__ import annotations

import json

import pytest
import torch
from click.shell_completion import BashComplete
from click.testing import CliRunner

from vistok.cli import main
from vistok.cli.listing import KINDS
from vistok.config import read_yaml, validate
from vistok.pretrained import releases
from vistok.pretrained.sizes import GENERATORS, SIZES
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig


def listed(*words: str) -> str:
    result = CliRunner().invoke(main, ["list", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_overview_names_every_kind():
    assert all(f"\n  {kind} " in listed() for kind in KINDS)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["tokenizers", "titok"], "titok-l32"),
        (["generators"], "rar-b"),
        (["configs", "quickstart"], "quickstart/tokenizer"),
        (["studies"], "studies/lengths"),
        (["data"], "folder"),
        (["metrics", "PSNR"], "PSNR"),
    ],
)
def test_rows_have_a_name_and_a_sentence(words, name):
    rows = json.loads(listed(*words, "--json"))
    assert name in [row["name"] for row in rows]
    assert all(row["about"] and row["kind"] == words[0] for row in rows)
    assert f"\n{name} " in "\n" + listed(*words)


def test_names_come_before_sentences():
    rows = json.loads(listed("configs", "quickstart", "--json"))
    assert {row["name"].partition("/")[0] for row in rows} == {"quickstart"}
    assert "tiny/maskgit " in listed("configs", "quickstart's tokens")


def test_a_slip_is_one_line():
    result = CliRunner().invoke(main, ["list", "tokenisers"])
    assert result.exit_code == 1 and "did you mean 'tokenizers'" in result.stderr


def test_sizes_are_those_of_the_recipes():
    known = releases()
    makes = {name: family.makes for name, (family, _) in known.items()}
    assert [name for name in makes if makes[name] == "tokenizer"] == list(SIZES)
    assert [name for name in makes if makes[name] == "generator"] == list(GENERATORS)
    for name in ("titok-l32", "one-d-piece-s256", "titok-ll32-vae-c16"):
        config = validate(TrainConfig, read_yaml(known[name][1].recipe[-1]))
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            spec = Tokenizer(config.task.tokenizer).spec()
        tokens = f"{spec.length}" if spec.prefix == "none" else f"1..{spec.length}"
        assert SIZES[name] == (tokens, spec.bits if spec.vocab else None)


def test_the_embedded_tokenizer_is_listed_first_with_its_size():
    first = json.loads(listed("tokenizers", "--json"))[0]
    spec = Tokenizer.from_pretrained("vistok-128").spec()
    assert first["name"] == "vistok-128" and first["bits"] == spec.bits
    assert first["tokens"] == f"1..{spec.length}" and spec.prefix == "token"


@pytest.mark.parametrize(
    ("words", "incomplete", "wanted"),
    [
        ([], "st", "study"),
        (["train"], "quick", "quickstart/tokenizer"),
        (["eval"], "titok-l", "titok-l32"),
        (["eval", "a"], "runs/m", "runs/mine"),
        (["eval"], "ver", "verify"),
        (["eval"], "lead", "leaderboard"),
        (["eval", "verify"], "rar", "rar-b"),
        (["eval", "leaderboard"], "runs/m", "runs/m"),  # a folder
        (["encode"], "titok-l", "titok-l32"),
        (["encode", "titok-l32"], "titok-l", "titok-l"),  # a file
        (["info"], "rar", "rar-b"),
        (["study"], "leng", "lengths_tiny"),
        (["cache"], "./x", "./x"),
    ],
)
def test_names_are_completed(words, incomplete, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine/model").mkdir(parents=True)
    found = BashComplete(main, {}, "vistok", "_VISTOK_COMPLETE").get_completions(words, incomplete)
    assert wanted in [item.value for item in found]
