"""Models by any name as runs: official weights are converted once into a folder of their name."""

from __future__ import annotations

from pathlib import Path

from vistok import pretrained
from vistok.config.errors import UserError
from vistok.runtime import distributed
from vistok.storage.foreign import SUFFIXES
from vistok.storage.hub import CONFIG, hub_id


def place(path: str | Path) -> Path:
    """The folder of a run, or of the saved model behind any other name.

    Released names, ids of the hub (`hf:owner/name`) and official weights are found as
    `pretrained.open` finds them; errors are its own. A path that leads nowhere is handed back as
    it is.
    """
    if not _is_other(path):
        return Path(path)
    if distributed.rank() == 0:
        pretrained.saved_folder(path)
    distributed.agree(0.0)  # the others wait until it is written
    return pretrained.saved_folder(path)


def _is_other(name: str | Path) -> bool:
    """True for a name that `pretrained` opens and that is not a folder in our own format."""
    path = Path(name)
    if path.is_dir():
        try:
            return (path / CONFIG).is_file() and pretrained.locate(path).folder is None
        except UserError:
            return False  # reading the run says more about what is wrong with it
    if path.exists():
        return path.suffix in SUFFIXES
    known = str(name) in pretrained.releases() or str(name) in pretrained.EMBEDDED
    return known or hub_id(name) is not None
