"""Images of the page: photographs that are on the machine, files of visitors, PNGs for the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.data.base import DataError
from vistok.data.batch import to_uint8
from vistok.data.decode.images import read
from vistok.data.kinds import photos

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 30 * 2**20  # of a visitor's file


def photographs() -> dict[str, Path]:
    """{name: file} of the seven photographs of scikit-image; {} where they are not installed."""
    try:
        return photos.files()
    except DataError:
        return {}


def opened(path: str | Path) -> Image:
    """An upright RGB image of a visitor's file.

    InputError, one line that says no path, for a file that is no whole image or too large.
    """
    file = Path(path)
    if file.is_file() and file.stat().st_size > MOST_BYTES:
        raise InputError(
            f"{file.name}: {file.stat().st_size / 2**20:.0f} MiB; expected at most "
            f"{MOST_BYTES // 2**20} MiB"
        )
    return read(file, file.name)


def png(pixels: Tensor) -> bytes:
    """[3, H, W] in 0..1 -> a PNG."""
    from PIL import Image

    array = to_uint8(pixels).permute(1, 2, 0).contiguous().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    """Bytes as an address that holds them, so that the page asks for no file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """[B, 3, H, W] -> one image [3, H', W'] with `columns` images a row, white between them."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for place, image in enumerate(images.cpu()):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet
