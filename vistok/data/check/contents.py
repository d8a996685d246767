"""The kinds of data that a folder holds, by the names of its files."""

from __future__ import annotations

import os
from collections import Counter

from vistok.data.kinds.folder import ENDINGS as IMAGES
from vistok.data.kinds.video import ENDINGS as VIDEOS
from vistok.data.kinds.walk import ending_of, walk

# Folders that one program wrote as a whole: (kind, where below the path, files that tell).
_SAVED = (
    ("tokens", "", ("meta.json", "tokens.npy")),
    ("tokens", "train", ("meta.json", "tokens.npy")),
    ("tokens", "val", ("meta.json", "tokens.npy")),
    *(("pairs", place, ("pairs.json", "index.jsonl")) for place in ("", "train", "val")),
    ("huggingface", "", ("state.json", "dataset_info.json")),
    ("huggingface", "", ("dataset_dict.json",)),
)
_KINDS = {"parquet": (".parquet",), "webdataset": (".tar",), "video": VIDEOS}


def contents(path: str) -> tuple[dict[str, list[str]], dict[str, int]]:
    """({kind of data: its files, or its folders}, {ending: number of files that belong to none}).

    Where there are images the folder is one of images, and all else is left out, unless more of its
    files are clips; so it is if there is no data at all. A GIF is what the others are.
    """
    found: dict[str, list[str]] = {}
    for kind, place, names in _SAVED:
        folder = os.path.join(path, place) if place else path
        if all(os.path.isfile(os.path.join(folder, name)) for name in names):
            found.setdefault(kind, []).append(folder)
    if found:
        return found, {}
    files = sorted(walk(path), key=os.fsencode)
    endings = [ending_of(name) for name in files]
    images, clips = (sum(e in some and e != ".gif" for e in endings) for some in (IMAGES, VIDEOS))
    still = clips <= images and set(IMAGES) & set(endings)
    kinds = {"folder": IMAGES} if still else _KINDS
    left_out: Counter[str] = Counter()
    for name, ending in zip(files, endings, strict=True):
        kind = next((kind for kind, mine in kinds.items() if ending in mine), None)
        if kind is None:
            left_out[ending] += 1
        else:
            found.setdefault(kind, []).append(os.path.join(path, name))
    return found or {"folder": []}, dict(left_out)
