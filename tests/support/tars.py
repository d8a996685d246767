"""Tar shards of small images, and the data part that reads them."""

import io
import tarfile

from vistok.config import validate
from vistok.config.registry import build
from vistok.data import WebDatasetConfig


def png(make_image, seed):
    file = io.BytesIO()
    make_image(12, 10, seed).save(file, "png")
    return file.getvalue()


def write_tar(path, members, format=tarfile.USTAR_FORMAT):
    """members: [(name, bytes)]."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def data(**options):
    return build(validate(WebDatasetConfig, {"size": 8, **options}))
