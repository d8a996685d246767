"""The wheel: what a user gets from `pip install .`, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

EVALUATION = "limit=8 pfid.mode=none report=out/report.html"


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
    """A command with the installed package, in a folder far from the checkout.

    -S keeps an editable installation of the checkout, which hangs in a .pth file, out of the way.
    """
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    place = site.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-S", "-P", *args],
        cwd=place,
        env={
            "PYTHONPATH": os.pathsep.join([str(site), *others]),
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def vistok(site: Path, line: str) -> str:
    return run(site, str(site / "bin" / "vistok"), *line.split())


def test_the_package_is_vistok_alone_with_its_data(site):
    names = {path.name for path in site.iterdir() if "dist-info" not in path.name}
    assert names == {"vistok", "bin"}
    weights = site / "vistok/frozen/weights"
    assert 0 < (weights / "vistok-cnn.safetensors").stat().st_size <= 3_000_000
    assert (weights / "vistok-cnn.md").is_file() and (site / "vistok/py.typed").is_file()
    here = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    installed = site / "vistok/configs"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == here
    for pattern in ("*.html.j2", "*.css", "*.js", "*.schema.json"):
        assert list((site / "vistok/eval").rglob(pattern)), pattern


def test_the_installed_package_works(site):
    code = (
        "import vistok; from vistok.frozen import feature_network; import torch;"
        "f = feature_network('vistok-cnn');"
        "print(vistok.__file__, f(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape)"
    )
    out = run(site, "-c", code)
    assert str(site) in out and "torch.Size([1, 320])" in out


def test_the_command_is_there(site):
    out = vistok(site, "--help")
    for verb in ("train", "eval", "info", "encode", "decode", "generate", "edit", "import"):
        assert verb in out
    listed = vistok(site, "train --list")
    assert "tokenizers/titok/titok_l32_stage1" in listed and "quickstart/tokens" in listed
    where = run(site, "-c", "import vistok.train, vistok.eval; print(vistok.eval.__file__)")
    assert str(site) in where


SMALL = (
    "steps=2 warmup=0 trackers=[] validate_limit=8 validate_every=0 grid_every=0 batch_size=4 "
    "data.count=16 data.val_count=8"
)


def test_a_training_and_an_evaluation_from_the_wheel_alone(site):
    vistok(site, f"train quickstart name=small {SMALL}")
    run(site, "-m", "vistok.train", "tiny/titok_vq", "--dry-run")  # its base lies in the wheel too
    assert "tokens/image" in vistok(site, "info runs/small")
    vistok(site, f"eval runs/small {EVALUATION}")
    place = site.parent / "elsewhere"
    assert (place / "out/report.html").is_file() and (place / "out/results.json").is_file()
