"""Who imports whom: the report knows results alone, results know nothing else of evaluation."""

import ast
from pathlib import Path

import pytest

EVAL = Path(__file__).parents[2] / "eval"
ALLOWED = {
    "results": ("results",),
    "report": ("results", "report"),
    "leaderboard": ("results", "report", "leaderboard"),
}


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows(package):
    files = sorted((EVAL / package).glob("*.py"))
    assert len(files) > 3
    for path in files:
        for name in imported(path):
            assert name.split(".")[0] not in ("torch", "torchmetrics"), (path.name, name)
            if name.startswith("vistok.eval."):
                assert name.split(".")[2] in ALLOWED[package], (path.name, name)


def test_no_file_is_longer_than_400_lines():
    for path in EVAL.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
