"""Imports run one way, vistok <- train <- eval, and the rooms of vistok do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BASE = {
    *("records", "tokens", "dice", "config", "registry", "distributed", "weights", "hub"),
    *("modes", "packing", "precision", "radix", "files", "foreign", "origin"),
}
LAYERS = BASE | {"layers"}
FROZEN = LAYERS | {"frozen"}
ROOMS = (
    *("spaces", "encoders", "decoders", "quantizers", "regularizers", "losses", "generators"),
    *("metrics", "data"),
)
MAY = {
    **dict.fromkeys(BASE, BASE),
    "errors": BASE | {"data"},
    "layers": LAYERS,
    "frozen": FROZEN,
    **{room: FROZEN | {room} for room in ROOMS},
    "tokenizer": FROZEN | set(ROOMS),
    "pretrained": FROZEN | set(ROOMS) | {"tokenizer", "pretrained"},
    "editing": FROZEN | set(ROOMS) | {"tokenizer"},
    "cli": FROZEN | set(ROOMS) | {"tokenizer", "pretrained", "editing", "errors"},
}


def imports(path: Path) -> set[str]:
    """Absolute module names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("place", sorted(MAY))
def test_rooms_of_vistok(place):
    files = [ROOT / "vistok" / f"{place}.py", *(ROOT / "vistok" / place).rglob("*.py")]
    known = {p.stem for p in (ROOT / "vistok").iterdir() if p.stem != "__init__"}
    for file in filter(Path.is_file, files):
        used = {n.split(".")[1] for n in imports(file) if n.startswith("vistok.")} & known
        assert used <= MAY[place], f"{file}: imports {sorted(used - MAY[place])}"


def test_every_place_is_known():
    places = {p.stem for p in (ROOT / "vistok").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert {p for p in places if not p.startswith("_")} == set(MAY)


@pytest.mark.parametrize(("tree", "forbidden"), [("vistok", "train eval"), ("train", "eval")])
def test_trees(tree, forbidden):
    for file in (ROOT / tree).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(file)}
        assert not tops & set(forbidden.split()), file


def test_eval_uses_only_the_loop_its_config_and_tasks():
    allowed = {
        "train.loop",
        "train.config",
        "train.tasks",
        "train.optim",
        "train.gradients",
        "train.memory",
    }
    for file in (ROOT / "eval").rglob("*.py"):
        used = {".".join(n.split(".")[:2]) for n in imports(file) if n.startswith("train.")}
        assert used <= allowed, file


def test_files_stay_small():
    for tree in ("vistok", "train", "eval"):
        for file in (ROOT / tree).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 400, file
