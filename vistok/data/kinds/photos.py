"""The offline data set: random views of seven photographs that come inside scikit-image's wheel.

Images, or (`frames`) clips that pan and zoom linearly from one view of a photograph to another:
video without a video. Frame 0 shows what the image of the same index shows.

A *view* is a random square window of one of the photographs. Training and
validation views come from disjoint keys, so validation shows unseen views of the same seven
photographs, not unseen photographs. Numbers made with it carry its name.

The photographs (class = place in this list) and their terms, as `skimage.data` states them:
- astronaut: NASA, Eileen Collins; no known copyright restrictions, public domain.
- chelsea: CC0 by the photographer (Stefan van der Walt).
- coffee: CC0 by the photographer (Rachel Michetti), courtesy of Pikolo Espresso Bar.
- hubble_deep_field: NASA (HubbleSite); may be freely used, public domain.
- ihc: `immunohistochemistry`, from the CMMI; no known copyright restrictions.
- retina: CC0 1.0 (Mikael Häggström, Wikimedia Commons).
- rocket: SpaceX, launch of DSCOVR; released in the public domain.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.rng import Rng
from vistok.data.base import BadSample, DataError, Dataset, Sample, Split, manifest_hash
from vistok.data.captions import Caption, CaptionConfig
from vistok.data.decode import images

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
FPS = 8.0  # of clips
_SMALLEST = 0.45  # side of a view's window, as a share of the shorter side; uniform up to 1
_LEVELS = (8, 4, 2, 1)  # the photographs made smaller by these, smallest first


class PhotosConfig(CaptionConfig):
    """Random views of scikit-image's photographs."""

    kind: Literal["photos"] = "photos"
    size: int = Field(default=32, ge=1, le=2**14)
    """Side of a view in pixels."""
    count: int = Field(default=1_000_000, ge=1, le=2**40)
    """Training views; one pass over them is an epoch."""
    val_count: int = Field(default=1024, ge=1, le=2**40)
    """Validation views."""
    seed: int = 0
    """Seed of the views: another seed gives other windows."""
    frames: int | None = Field(default=None, ge=1, le=2**12)
    """Frames of a clip that pans and zooms from one view to another, at 8 frames a second; null:
    images."""
    motion: float = Field(default=1.0, ge=0, le=1)
    """How far a clip moves: the share of the way from its first view to another; 0 stands still."""


@register("data", PhotosConfig)
class Photos:
    """The data part `photos`."""

    def __init__(self, config: PhotosConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """Read the photographs; DataError if scikit-image lacks one.

        A view is one fixed window, mirrored or not: `augment` changes nothing.
        """
        return PhotosDataset(self.config, split)


class PhotosDataset(Dataset):
    """View `index` is the same in every epoch and run: it depends on (config.seed, split, index).

    Mirroring is part of a view, so the loader mirrors nothing.
    """

    classes = tuple(FILES)

    def __init__(self, config: PhotosConfig, split: Split) -> None:
        self.config, self.split = config, split
        self.size, self.frames = (config.size, config.size), config.frames
        self.caption = Caption(config, self.classes)
        self.texts = self.caption.given
        self._count = config.count if split == "train" else config.val_count
        self._rng = Rng(config.seed, f"views/{split}")
        folder = _folder()
        self._pyramids = [_pyramid(folder / file) for file in FILES.values()]

    def __len__(self) -> int:
        return self._count

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        which, share, x, y, mirrored, *second = self._rng.generator(index).random(8)
        label = int(which * len(self._pyramids))
        levels, size = self._pyramids[label], self.config.size
        windows = _window(levels[1].size, share, x, y)[None]
        if self.frames:
            last = _window(levels[1].size, *second)
            if self.config.motion != 1:
                last = windows[0] + self.config.motion * (last - windows[0])
            windows = np.linspace(windows[0], last, self.frames)
        # The smallest level that still holds twice the pixels asked for: sharp, and cheap to read.
        # One for all frames of a clip, so that none is softer than its neighbor.
        factor = next((f for f in _LEVELS if windows[:, 2].min() / f >= 2 * size), 1)
        views = [_view(levels[factor], factor, size, window) for window in windows]
        pixels = torch.stack(views, dim=1) if self.frames else views[0]
        if mirrored < 0.5:
            pixels = pixels.flip(-1)
        name = f"photos/{self.split}/{index} ({self.classes[label]})"
        fps, text = FPS if self.frames else None, self.caption(label, name)
        return Sample(index, pixels, label, name, fps=fps, text=text)

    def record(self) -> dict[str, Any]:
        """`manifest` covers the parameters and the photographs' files."""
        config, folder = self.config, _folder()
        facts = [f"{self.split} size={config.size} count={len(self)} seed={config.seed}"]
        for file in FILES.values():
            facts.append(f"{file} {hashlib.sha256((folder / file).read_bytes()).hexdigest()}")
        moves = {}
        if self.frames:
            moves = {"frames": self.frames, "fps": FPS, "motion": "a line between two windows"}
            facts[0] += f" frames={self.frames} fps={FPS:g}"
            if config.motion != 1:
                moves["motion"] += f", {config.motion:g} of the way"
                facts[0] += f" motion={config.motion:g}"
        return {
            "kind": "photos",
            "source": "views of seven photographs inside scikit-image (not unseen photographs)",
            "split": self.split,
            "count": len(self),
            "classes": len(self.classes),
            "seed": config.seed,
            "size": list(self.size),
            "crop": f"window {_SMALLEST:g}-1 of the shorter side",
            "filter": "bicubic",
            "flip": "inside the view",
            **moves,
            **self.caption.record(),
            "manifest": manifest_hash(facts),
        }


def files() -> dict[str, Path]:
    """{class: file} of the photographs; DataError if scikit-image lacks one."""
    folder = _folder()
    return {name: folder / file for name, file in FILES.items()}


def _folder() -> Path:
    """Folder of the photographs, found without importing scikit-image."""
    spec = importlib.util.find_spec("skimage")
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        folder = Path(place) / "data"
        if all((folder / file).is_file() for file in FILES.values()):
            return folder
    raise DataError(
        f"data.photos: scikit-image's photographs ({', '.join(FILES.values())}) are not installed; "
        f"pip install 'scikit-image>=0.24'"
    )


def _pyramid(path: Path) -> dict[int, Image]:
    try:
        whole = images.read(path)
    except BadSample as bad:
        raise DataError(f"data.photos {bad}; install scikit-image again") from None
    return {factor: whole.reduce(factor) if factor > 1 else whole for factor in _LEVELS}


def _window(size: tuple[int, int], share: float, x: float, y: float) -> np.ndarray:
    """(left, top, side) of a window of a photograph of `size` (width, height), from draws."""
    side = min(size) * (_SMALLEST + (1.0 - _SMALLEST) * share)
    return np.array([(size[0] - side) * x, (size[1] - side) * y, side])


def _view(level: Image, factor: int, size: int, window: np.ndarray) -> Tensor:
    """[3, size, size] uint8 of a window of the photograph, read from one level of its pyramid."""
    left, top, side = window
    edges = [edge / factor for edge in (left, top, left + side, top + side)]
    box = (*edges[:2], min(edges[2], level.width), min(edges[3], level.height))
    return images.to_tensor(_resize(level, size, box))


def _resize(level: Image, size: int, box: tuple[float, float, float, float]) -> Image:
    from PIL.Image import Resampling

    return level.resize((size, size), Resampling.BICUBIC, box=box)
