"""Released tokenizers as runs: converted once into a folder of their name."""

from __future__ import annotations

from pathlib import Path

from vistok import pretrained
from vistok.runtime import distributed
from vistok.storage.hub import WEIGHTS

FOLDER = Path("runs/released")


def place(path: str | Path) -> Path:
    """The folder of a run, of a saved model, or of a released tokenizer by its name.

    A released one is found as `vistok import` finds it and kept below FOLDER. Errors are those of
    `pretrained.load`; a path that is neither is handed back as it is.
    """
    if Path(path).exists() or str(path) not in pretrained.releases():
        return Path(path)
    folder = FOLDER / str(path)
    if distributed.rank() == 0 and not (folder / WEIGHTS).is_file():
        pretrained.load(path).save_pretrained(folder)
    distributed.agree(0.0)  # the others wait until it is written
    return folder
