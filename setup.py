"""Makes train/, eval/ and configs/ packages of vistok, which pyproject.toml cannot express."""

from setuptools import find_packages, setup

TREES = ("train", "eval", "configs")
below = [name for tree in TREES for name in find_packages(include=[tree, f"{tree}.*"])]

setup(
    packages=[
        *find_packages(include=["vistok", "vistok.*"]),
        *(f"vistok.{name}" for name in below),
    ],
    package_dir={f"vistok.{tree}": tree for tree in TREES},
)
