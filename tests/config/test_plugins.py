"""`plugins=my.module` among the words of a command."""

import sys

import pytest

from vistok.config import ConfigError, take_plugins

WORDS = ["runs/a", "plugins_of=3", "steps=2"]


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"parts_of_a_test_{letter}" for letter in "ab"]
    for name in names:
        (tmp_path / f"{name}.py").write_text("")
    yield names
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("form", ["plugins={}", "plugins=[{}, {}]", "plugins=[{},{}]"])
def test_modules_are_loaded_and_the_other_words_are_left(modules, form):
    assert take_plugins([WORDS[0], form.format(*modules), *WORDS[1:]]) == WORDS
    assert (modules[0] in sys.modules, modules[1] in sys.modules) == (True, "[" in form)


@pytest.mark.parametrize(
    "value", ["", "3", "[]", "[a, 3]", "{a: b}", ".x", "a..b", "a.", "my/parts.py", "[a, .x]"]
)
def test_a_value_that_names_no_module(value, fails):
    with fails(ConfigError, "plugins=.*expected a Python module or a list"):
        take_plugins([f"plugins={value}"])


def test_a_module_that_is_not_there(fails):
    with fails(ConfigError, "plugins: cannot import 'no_such_module'"):
        take_plugins(["plugins=[no_such_module]"])


@pytest.mark.parametrize(
    "text", ["1 / 0", "def", "import no_such_module_here", "raise KeyError('x')"]
)
def test_a_module_that_fails_is_the_users_own(modules, tmp_path, text, fails):
    (tmp_path / f"{modules[0]}.py").write_text(text)
    with fails(ConfigError, rf"plugins: .*{modules[0]}'"):
        take_plugins([f"plugins={modules[0]}"])
