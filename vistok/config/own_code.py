"""The user's own modules: which were loaded, and the line of one of them where an error arose.

An error that arises in somebody's own part is theirs to mend, and must not be taken for a bug of
vistok. Nothing here imports anything; `plugins` does.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from types import ModuleType
from typing import NamedTuple

VISTOK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the package's folder
# A data loader's worker hands its traceback on as text.
_IN_WORKER = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')

_modules: dict[str, str] = {}  # name -> file, or folder of a package


class Frame(NamedTuple):
    """One line of a traceback."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        inside = "" if self.function == "<module>" else f" in {self.function}"
        return f"{shown(self.file)}, line {self.line}{inside}"


def note(module: ModuleType) -> None:
    """Remember a module of the user's own, with all that lies in its package."""
    file = getattr(module, "__file__", None)
    if file is None:  # a folder without __init__.py: only what is imported from it has a file
        return
    is_package = os.path.basename(file).startswith("__init__.")
    _modules[module.__name__] = os.path.abspath(os.path.dirname(file) if is_package else file)


def names() -> list[str]:
    """Names of the modules that `note` was given."""
    return list(_modules)


def place(error: BaseException) -> Frame | None:
    """The innermost line of the user's own code behind an error; None if it did not pass any.

    Own code is a noted module, and below it whatever belongs to neither vistok, Python nor an
    installed package: a helper of the module, say.
    """
    found = frames(error)
    mine = [number for number, frame in enumerate(found) if _noted(frame.file)]
    if not mine:
        return None
    below = found[mine[0] :]
    return [one for one in below if _noted(one.file) or not _installed(one.file)][-1]


def frames(error: BaseException) -> list[Frame]:
    """The traceback of an error from the outermost line to the innermost, that of a data loader's
    worker included."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return [Frame(error.filename, error.lineno or 0, "<module>")]
    found = [
        Frame(one.filename, one.lineno or 0, one.name)
        for one in traceback.extract_tb(error.__traceback__)
    ]
    text = str(error)
    if "Original Traceback" in text:
        quoted = _IN_WORKER.findall(text)
        found += [Frame(file, int(line), function) for file, line, function in quoted]
    return found


def own_line(error: BaseException) -> Frame | None:
    """The innermost line of an error that belongs to neither vistok, Python nor an installed
    package; None if there is none."""
    own = [frame for frame in frames(error) if not _installed(frame.file)]
    return own[-1] if own else None


def shown(file: str) -> str:
    """A file as a user names it: from the current folder if it lies below it."""
    try:
        near = os.path.relpath(file)
    except (ValueError, OSError):  # another drive, or the folder is gone
        return file
    return file if near.startswith("..") else near


def _noted(file: str) -> bool:
    file = os.path.abspath(file)
    return any(file == root or file.startswith(root + os.sep) for root in _modules.values())


def _installed(file: str) -> bool:
    if file.startswith("<"):  # <frozen importlib>, <string>
        return True
    file = os.path.abspath(file)
    if "site-packages" in file or "dist-packages" in file:
        return True
    roots = [VISTOK, *_trees(), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return any(file.startswith(root + os.sep) for root in roots if root)


def _trees() -> list[str]:
    """Folders of vistok.train and vistok.eval, which lie apart in a checkout."""
    loaded = (sys.modules.get(name) for name in ("vistok.train", "vistok.eval"))
    files = (getattr(module, "__file__", None) for module in loaded)
    return [os.path.dirname(os.path.abspath(file)) for file in files if file]
