"""Made-up images, and the shared real ones if they are on this machine."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.data import BadSample, Dataset, Sample


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real and broken inputs: $VISTOK_DATA_DIR, else ../shared/data of the checkout."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("VISTOK_DATA_DIR", default))
    if not (folder / "broken" / "manifest.json").is_file():
        pytest.skip(f"no test data in {folder}; set VISTOK_DATA_DIR")
    return folder


@pytest.fixture
def make_image():
    """image(width, height, seed) -> a random PIL RGB image."""

    def make(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
        rng = np.random.default_rng(seed)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make


@pytest.fixture
def tree(tmp_path, make_image) -> Path:
    """A folder of two classes, nested, with a hidden file, a text file and a broken image."""
    for name in (
        "b/2.png",
        "b/deep/er/1.jpg",
        "a/10.png",
        "a/9.JPEG",
        "a/Z.webp",
        "a/y.png",
        "b/x.bmp",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(seed=len(name)).save(path)
    (tmp_path / "tree" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "tree" / "a" / "._9.jpg").write_bytes(b"resource fork")
    return tmp_path / "tree"


class Numbers(Dataset):
    """Sample i is a flat image of value i; those in `broken` cannot be used."""

    classes = ("even", "odd")
    size = (2, 2)

    def __init__(self, count: int, broken: tuple[int, ...] = (), flip: bool = False) -> None:
        self.count, self.broken, self.flip = count, frozenset(broken), flip

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        if index in self.broken:
            raise BadSample(f"number {index}", "made broken")
        pixels = torch.full((3, 2, 2), index % 256, dtype=torch.uint8)
        pixels[:, :, 0] = epoch
        return Sample(index, pixels, index % 2, f"number {index}")

    def record(self) -> dict:
        return {"kind": "numbers", "count": self.count}


@pytest.fixture
def numbers():
    return Numbers
