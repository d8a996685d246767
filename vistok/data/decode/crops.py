"""Several crops of each image (or clip), as rows of a token cache.

`2`: the center crop and its mirror. `ten`: LlamaGen's set. The image is made `crop_range` times
larger than the target (by the data set's own crop and filter; LlamaGen's is `crop: adm`), then come
the windows top left, top right, bottom left, bottom right and center, then the same five windows
of the mirrored image. Of several crop ranges, such a set of each follows the other (LlamaGen draws
from those of 1.1 and 1.05). All frames of a clip are cropped alike. Training draws one of a
sample's crops for each epoch; an evaluation takes the center.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.data.base import Dataset, Sample, Split

Crops = Literal[1, 2, "ten"]
_COUNT = {2: 2, "ten": 10}
_CENTER = {2: 0, "ten": 4}


def open_crops(
    config: Any, split: Split, crops: Crops, crop_range: float | Sequence[float]
) -> Dataset:
    """The un-augmented data set of a data config, `crops` rows per sample.

    ConfigError if there are several crops and the data have no images of a set size.
    """
    if crops == 1:
        return build(config).open(split, augment=False)
    size = getattr(config, "size", None)
    if size is None:
        raise ConfigError(
            f"task.crops={crops}: data of kind {config.kind} has no size to crop to; use images"
        )
    hw = (size, size) if isinstance(size, int) else tuple(size)
    if crops != "ten":
        return CroppedDataset([build(config).open(split, augment=False)], crops, hw, ())
    ranges = (crop_range,) if isinstance(crop_range, int | float) else tuple(crop_range)
    images = []
    for factor in ranges:
        wide = tuple(int(side * factor) for side in hw)
        wider = config.model_copy(update={"size": wide[0] if isinstance(size, int) else wide})
        images.append(build(wider).open(split, augment=False))
    return CroppedDataset(images, crops, hw, ranges)


class CroppedDataset(Dataset):
    """Row i is crop i % crops of sample i // crops; a resume in the middle of a sample is exact."""

    def __init__(
        self,
        scaled: Sequence[Dataset],
        crops: Crops,
        hw: tuple[int, int],
        ranges: tuple[float, ...],
    ) -> None:
        """
        Args:
            scaled: the same images, as large as each of `ranges` says.
        """
        self.images, self.scaled, self.kind, self.size = scaled[0], scaled, crops, hw
        self.classes, self.crops = self.images.classes, _COUNT[crops] * len(scaled)
        self.texts, self.frames, self.ranges = self.images.texts, self.images.frames, ranges
        self.names = self.images.names
        self._last: tuple[tuple[int, int], Sample] | None = None

    def __len__(self) -> int:
        return len(self.images) * self.crops

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        number, crop = divmod(index, self.crops)
        place, window = divmod(crop, _COUNT[self.kind])
        whole = self._whole(number, place)
        pixels = cut(whole.pixels, self.kind, self.size)[window]
        name = f"{whole.name} crop {crop}"
        return Sample(index, pixels, whole.label, name, fps=whole.fps, text=whole.text)

    def record(self) -> dict[str, Any]:
        """The images' record, and `crops`: kind, size, which one is the center."""
        how = {"kind": self.kind, "size": list(self.size), "center": _CENTER[self.kind]}
        if self.kind == "ten":
            how["range"] = self.ranges[0] if len(self.ranges) == 1 else list(self.ranges)
        return {**self.images.record(), "crops": how}

    def _whole(self, number: int, place: int) -> Sample:
        """The image of a set before it is cropped; neighboring rows are of the same one."""
        if self._last is None or self._last[0] != (number, place):
            self._last = ((number, place), self.scaled[place].sample(number))
        return self._last[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_last": None}


def cut(pixels: Tensor, crops: Crops, hw: tuple[int, int]) -> tuple[Tensor, ...]:
    """[..., H, W] -> the crops [..., h, w] in their order."""
    from torchvision.transforms.functional import ten_crop

    if crops == 2:
        return pixels, pixels.flip(-1)
    return tuple(ten_crop(pixels, list(hw)))
