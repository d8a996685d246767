"""JPEG, WebP and AVIF as PIL writes them: bytes and quality of the real images, by quality.

Each (codec, quality) is measured once for a set of images, whatever number of tokenizers is
compared with it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.protocols.common import Quality
from vistok.eval.results.rows import Row
from vistok.runtime.distributed import sum_

SWEEP = (1, 10, 25, 50, 75, 90, 95)  # qualities of the plain curve
_SEARCHED = 256  # images whose mean size the search for a quality looks at
NEAR = 0.1  # a size is matched if it is at most this share away


@dataclass(frozen=True)
class Codec:
    """One format of PIL, with the options that make its files small."""

    name: str
    module: str  # of PIL's features
    lowest: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        from PIL import features

        return bool(features.check(self.module))

    @property
    def version(self) -> str:
        from PIL import features

        return f"{self.module} {features.version(self.module)}"

    def encode(self, image: Tensor, quality: int) -> bytes:
        """[3, H, W] uint8 -> a file."""
        from PIL import Image

        file = io.BytesIO()
        made = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        made.save(file, self.name, quality=quality, **self.options)
        return file.getvalue()

    @staticmethod
    def decode(data: bytes) -> Tensor:
        """A file -> [3, H, W] uint8."""
        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


CODECS = (
    Codec("JPEG", "jpg", 1, {"optimize": True}),
    Codec("WebP", "webp", 0, {"method": 6}),
    Codec("AVIF", "avif", 0, {"speed": 6, "max_threads": 1}),
)
_HIGHEST = 95


def mean_bytes(views: Views, codec: Codec, quality: int) -> float:
    """Mean size over the first images, the same on every rank."""
    key = ("codec bytes", codec.name, quality)
    if key not in views.memo:
        count = min(_SEARCHED, len(views))
        if "codec images" not in views.memo:
            views.memo["codec images"] = [views.dataset[i].pixels for i in range(count)]
        sizes = [len(codec.encode(one, quality)) for one in views.memo["codec images"]]
        views.memo[key] = sum(sizes) / count
    return views.memo[key]


def nearest_quality(views: Views, codec: Codec, target: float) -> tuple[int, float]:
    """(quality, mean bytes) whose mean size comes nearest to `target`, by bisection: sizes grow
    with quality."""
    low, high = codec.lowest, _HIGHEST
    while high - low > 1:
        middle = (low + high) // 2
        if mean_bytes(views, codec, middle) < target:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda q: abs(mean_bytes(views, codec, q) - target))
    return best, mean_bytes(views, codec, best)


def matched(found: float, target: float) -> bool:
    return abs(found - target) <= NEAR * target


def codec_rows(context: Context, codec: Codec, quality: int, note: str = "") -> list[Row]:
    """PSNR, perceptual and Fréchet distance at one quality, on all images."""
    views = context.views
    seen = None if context.perceptual is None else context.perceptual.sha256
    key = ("codec rows", codec.name, quality, context.features.sha256, seen)
    if key not in views.memo:
        quality_of = Quality(context)
        total = torch.zeros((), dtype=torch.float64)
        for batch in views.batches(f"{codec.name} quality {quality}"):
            real = to_uint8(batch.pixels).cpu()
            files = [codec.encode(one, quality) for one in real]
            total += sum(map(len, files))
            decoded = torch.stack([codec.decode(one) for one in files])
            quality_of.update(decoded.to(batch.pixels.device), batch.pixels)
        mean = float(sum_(total)) / len(views)
        views.memo[key] = quality_of.rows(
            run=codec.name,
            weights={},
            point={"codec": codec.name},
            measured={"bytes": mean},
            length=None,
            # Measured beside the first run, and of no run: nothing of its tokenizer counts.
            sampling={},
            seed=None,
            condition="none",
        )
    about = f"quality {quality}, {codec.version}{', ' if note else ''}{note}"
    join = lambda row: f"{about}; {row.note}" if row.note else about
    return [row.model_copy(update={"note": join(row)}) for row in views.memo[key]]
