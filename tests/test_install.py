"""The wheel: what a user gets from `pip install .`, without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """vistok alone, installed into an empty folder from a copy of the sources."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("vistok", "train", "eval", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--target", str(site), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return site


def run(site: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=site.parent,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_vistok_alone_with_its_weights(site):
    names = {path.name for path in site.iterdir() if "dist-info" not in path.name}
    assert names == {"vistok", "bin"}
    weights = site / "vistok/frozen/weights"
    assert 0 < (weights / "vistok-cnn.safetensors").stat().st_size <= 3_000_000
    assert (weights / "vistok-cnn.md").is_file()


def test_the_installed_package_works(site):
    code = (
        "import vistok; from vistok.frozen import feature_network; import torch;"
        "f = feature_network('vistok-cnn');"
        "print(vistok.__file__, f(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape)"
    )
    out = run(site, "-c", code)
    assert str(site) in out and "torch.Size([1, 320])" in out


def test_the_command_is_there(site):
    out = run(site, str(site / "bin" / "vistok"), "--help")
    for verb in ("info", "encode", "decode", "generate"):
        assert verb in out
