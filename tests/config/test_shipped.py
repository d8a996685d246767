"""Configs that come with vistok, by name, from any folder."""

from __future__ import annotations

import pytest

from vistok.config import ConfigError, read_yaml
from vistok.config.shipped import describe, find, folder, shipped


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("quickstart", "quickstart/tokenizer.yaml"),
        ("quickstart/tokens", "quickstart/tokens.yaml"),
        ("quickstart/generator.yaml", "quickstart/generator.yaml"),
        ("tokenizers/titok/titok_l32_stage1", "tokenizers/titok/titok_l32_stage1.yaml"),
        ("titok_l32_stage1", "tokenizers/titok/titok_l32_stage1.yaml"),
        ("titok/titok_b64_stage2", "tokenizers/titok/titok_b64_stage2.yaml"),
        ("tiny/textok", "tiny/textok.yaml"),
        ("feature_net", "jobs/feature_net.yaml"),
    ],
)
def test_names(name, file):
    assert find(name) == folder() / file
    assert read_yaml(name)["task"]


def test_a_file_of_ones_own_comes_first(tmp_path):
    (tmp_path / "quickstart").write_text("name: mine\n")
    assert read_yaml("quickstart") == {"name": "mine"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("textok", "textok: 2 configs have this name; say tiny/textok or tokenizers/textok/textok"),
        (
            "quickstrat",
            "quickstrat: no such config file; did you mean 'quickstart'.*vistok list",
        ),
        ("titok_l32_stage3", "did you mean 'tokenizers/titok/titok_l32_stage"),
        ("quickstart/tokns", "did you mean 'quickstart/tokens'"),
        ("no/such.yaml", "no/such.yaml: no such config file"),
    ],
)
def test_what_is_no_config(fails, name, words):
    with fails(ConfigError, words):
        find(name)


def test_every_config_says_what_it_is():
    assert len(shipped()) > 40
    for name, path in shipped().items():
        line = describe(path)
        assert 10 < len(line) < 250 and not line.endswith("."), (name, line)
