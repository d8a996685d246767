"""The files below a folder, and their endings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from vistok.data.base import DataError

UNREAD = (  # images and videos of kinds that are not read: said where they lie beside others
    *(".apng", ".arw", ".avif", ".cr2", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k"),
    *(".jfif", ".jp2", ".jpe", ".jxl", ".nef", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".svg"),
    *(".tga", ".tif", ".tiff", ".mxf", ".rm", ".rmvb", ".y4m"),
)
_MOST_VISITS = 100  # of one folder, through links


def walk(root: str) -> Iterator[str]:
    """Relative paths of all files below a folder, hidden folders left out.

    Links are followed, so a folder that is linked twice is there twice; a link back up is not
    followed into the circle. DataError if links lead to a folder again and again, and for a folder
    that cannot be listed.
    """

    def refuse(error: OSError) -> None:  # else its files would be missing in silence
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check your rights, or move it "
            f"away"
        )

    base = Path(root).expanduser()
    visits: Counter[str] = Counter()
    above = {str(base): (os.path.realpath(base),)}  # real paths: those above a folder, and its own
    for folder, below, files in os.walk(base, onerror=refuse, followlinks=True):
        places = above.pop(folder)
        visits[places[-1]] += 1
        if visits[places[-1]] > _MOST_VISITS:
            raise DataError(
                f"{root}: links lead to {folder!r} in more than {_MOST_VISITS} ways; remove links "
                f"between its folders"
            )
        kept = []
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith(".") and real not in places:
                kept.append(name)
                above[os.path.join(folder, name)] = (*places, real)
        below[:] = kept
        prefix = Path(folder).relative_to(base).as_posix()
        for file in files:
            yield file if prefix == "." else f"{prefix}/{file}"


def ending_of(name: str) -> str:
    """The ending of a file in small letters (".png"), "hidden" or "without ending"."""
    file = name.rpartition("/")[2]
    if file.startswith("."):
        return "hidden"
    return os.path.splitext(file)[1].lower() or "without ending"


def endings_text(endings: Mapping[str, int]) -> str:
    """ "30 .tif, 2 hidden": how many files of which endings, the commonest first."""
    counts = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {ending}" for ending, count in counts)
