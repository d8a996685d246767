"""Imports run one way, vistok <- train <- eval, and the kinds of parts do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CORE = {"core"}
CONFIG = CORE | {"config"}
GROUND = CONFIG | {"tokens", "storage", "runtime"}
LAYERS = GROUND | {"layers"}
FROZEN = LAYERS | {"frozen"}
PARTS = (
    *("spaces", "encoders", "decoders", "heads", "quantizers", "regularizers", "losses"),
    *("generators", "metrics", "data"),
)
MAY = {
    "core": CORE,
    "config": CONFIG,
    **{one: CONFIG | {one} for one in ("tokens", "storage", "runtime")},
    "layers": LAYERS,
    "frozen": FROZEN,
    **{part: FROZEN | {part} for part in PARTS},
    "conditioning": FROZEN | {"conditioning"},
    "tokenizer_config": FROZEN | {"spaces", "conditioning"},
    "tokenizer_files": FROZEN | {"conditioning", "tokenizer_config"},
    "tokenizer_sampling": LAYERS,
    "causal": LAYERS | {"causal", "rates"},
    "images": FROZEN | {"data"},
    "adaptive": FROZEN | {"metrics", "data"},
    "rates": LAYERS,
    "presence": LAYERS,
    "recounting": LAYERS,
    "tokenizer": FROZEN
    | set(PARTS)
    | {"conditioning", "tokenizer_config", "tokenizer_files", "images", "adaptive", "causal"}
    | {"rates", "tokenizer_sampling", "presence", "recounting"},
    "pretrained": FROZEN | set(PARTS) | {"tokenizer", "pretrained"},
    "editing": FROZEN | set(PARTS) | {"tokenizer"},
    "exporting": FROZEN | {"tokenizer"},
    "drawing": CORE,
    "tiling": FROZEN | {"data", "tokenizer", "tiling"},
    "chunking": FROZEN | {"data", "rates", "tokenizer", "tiling"},
    "transcoding": FROZEN | {"chunking", "rates", "tokenizer", "tiling"},
    "clip_streams": FROZEN | {"chunking", "tokenizer"},
    "demo": FROZEN | set(PARTS) | {"tokenizer", "pretrained", "editing", "demo"},
    "contracts": FROZEN | set(PARTS) | {"tokenizer", "contracts"},
    "cli": FROZEN
    | set(PARTS)
    | {"tokenizer", "pretrained", "editing", "adaptive", "demo", "cli"}
    | {"tiling", "chunking", "transcoding", "clip_streams", "drawing", "contracts", "rates"},
}


def imports(path: Path) -> set[str]:
    """Absolute module names that a file imports, anywhere in it."""
    names = set()
    tree = ast.parse(path.read_text())
    for block in ast.walk(tree):  # names that annotations alone need import nothing
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("place", sorted(MAY))
def test_packages_of_vistok(place):
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
        for name in forbidden.split():
            assert not any(f"{used}.".startswith(f"vistok.{name}.") for used in imports(file)), file


def test_eval_uses_only_the_loop_its_config_and_tasks():
    allowed = {
        "vistok.train.loop",
        "vistok.train.config",
        "vistok.train.tasks",
        "vistok.train.parallel",
        "vistok.train.step",
        "vistok.train.memory",
    }
    for file in (ROOT / "eval").rglob("*.py"):
        used = {".".join(n.split(".")[:3]) for n in imports(file) if n.startswith("vistok.train.")}
        assert used <= allowed, file


def test_files_stay_small():
    for tree in ("vistok", "train", "eval"):
        for file in (ROOT / tree).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 400, file
