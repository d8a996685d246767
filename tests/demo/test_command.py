"""`vistok demo`: who can reach the page, and what is said without gradio."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from vistok.cli import main
from vistok.demo import serve


@pytest.fixture
def started(monkeypatch, make_tokenizer, tmp_path):
    """[(models, host, port)] of the pages that the command would have served."""
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    pages = []

    @contextlib.contextmanager
    def served(*page):
        pages.append(page)
        yield SimpleNamespace(url="http://here", wait=lambda: None)

    monkeypatch.setattr(serve, "served", served)
    monkeypatch.setattr(serve, "check_installed", lambda: None)
    return pages


def call(*words):
    return CliRunner().invoke(main, ["demo", *words, "--no-open"])


def test_this_machine_only_unless_told_otherwise(started):
    found = call("tiny")
    assert found.output == "vistok demo: http://here (Ctrl-C ends it)\n"
    ((models, host, port),) = started
    assert (models.names, models.typed, host, port) == (["tiny"], True, "127.0.0.1", None)


def test_others_may_choose_named_models_only(started):
    found = call("tiny", "--host", "0.0.0.0", "--port", "8080")
    assert "there is no password" in found.output
    ((models, host, port),) = started
    assert (models.typed, host, port) == (False, "0.0.0.0", 8080)


def test_a_model_that_is_not_there_is_one_line(started):
    found = call("nothing")
    assert found.exit_code
    assert len(found.output.splitlines()) == 1
    assert started == []


def test_without_gradio(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    found = call()
    assert found.exit_code
    assert found.output == "error: the playground needs gradio: pip install 'vistok[demo]'\n"
