"""Text files have a named encoding: under an ASCII locale the default could not write a µ."""

import ast
from pathlib import Path

import pytest

from tests.support.training import ROOT

TREES = ("vistok", "train", "eval")


def unnamed(source: str) -> list[int]:
    """Lines that open text without naming its encoding."""
    found, tree = [], ast.parse(source)
    names = {getattr(node, "name", "") for node in tree.body}  # of the module's own functions
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = any(word.arg == "encoding" for word in node.keywords)
        match node.func:
            case ast.Attribute(attr="read_text"):
                named |= bool(node.args)
            case ast.Attribute(attr="write_text"):
                named |= len(node.args) > 1
            case ast.Name(id="open") if "open" not in names:
                modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
                named |= any("b" in getattr(mode, "value", "b") for mode in modes)
            case _:
                continue
        if not named:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("tree", TREES)
def test_every_text_file_is_opened_with_a_named_encoding(tree):
    files = sorted(Path(ROOT, tree).rglob("*.py"))
    assert files
    wrong = [f"{file}:{line}" for file in files for line in unnamed(file.read_text("utf-8"))]
    assert wrong == []


def test_an_unnamed_encoding_is_found():
    code = "p.read_text()\np.write_text(x)\nopen(p)\nopen(p, 'a')\n"
    assert unnamed(code) == [1, 2, 3, 4]
    good = (
        "p.read_text('utf-8')\np.write_text(x, 'utf-8')\nopen(p, 'rb')\nopen(p, encoding='utf-8')\n"
    )
    assert unnamed(good) == []
    assert unnamed("def open(name): ...\nopen(name)\n") == []
