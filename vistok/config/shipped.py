"""The configs that come with vistok, by name.

A name is the path below `configs/` without `.yaml` (`tokenizers/titok/titok_l32_stage1`), its last
parts if they name one file alone (`titok_l32_stage1`), or a folder that holds a `tokenizer.yaml`
(`quickstart`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vistok.config.errors import ConfigError
from vistok.config.names import close

_MAIN = "tokenizer"  # the file that a folder's name stands for


def folder() -> Path | None:
    """Folder of the shipped configs; None in an installation without them."""
    found = importlib.util.find_spec("vistok.configs")
    places = [] if found is None else list(found.submodule_search_locations or ())
    return Path(places[0]) if places else None


def shipped() -> dict[str, Path]:
    """Every shipped config by its whole name, in alphabetical order."""
    root = folder()
    files = () if root is None else root.rglob("*.yaml")
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(files)}


def find(name: str | Path) -> Path:
    """The file of a config: a path, or the name of a shipped one.

    Raises ConfigError for a name that is neither (with the nearest one) or that several have.
    """
    path = Path(name)
    if path.is_file():
        return path
    wanted = str(name).removesuffix(".yaml")
    known = shipped()
    for whole in (wanted, f"{wanted}/{_MAIN}"):
        if whole in known:
            return known[whole]
    ends = [whole for whole in known if whole.endswith(f"/{wanted}")]
    if len(ends) == 1:
        return known[ends[0]]
    if ends:
        raise ConfigError(f"{name}: {len(ends)} configs have this name; say {' or '.join(ends)}")
    names = {whole: whole for whole in known}
    if "/" not in wanted:  # compared with last parts and folders
        names = {whole.rpartition("/")[2]: whole for whole in known}
        folders = [whole.removesuffix(f"/{_MAIN}") for whole in known]
        names |= {folder: folder for folder in folders if folder not in known}
    like = names.get(close(wanted, names, cutoff=0.6) or "")
    hint = f"did you mean '{like}'? " if like else ""
    raise ConfigError(
        f"{name}: no such config file; {hint}expected the path of a YAML file or a name that "
        "`vistok list configs` shows"
    )


def trained() -> dict[str, Path]:
    """The shipped configs of `vistok train`, without those of accelerate and of studies."""
    return {
        name: path
        for name, path in shipped().items()
        if not name.startswith(("launch/", "studies/"))
    }


def describe(path: Path) -> str:
    """The first sentence of the comment that a config begins with."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# yaml-language-server:"):  # for editors
            continue
        if not line.startswith("#") or line.startswith("#   "):  # a command, on a line of its own
            break
        lines.append(line.lstrip("# ").strip())
    text = " ".join(lines)
    first, stop, _ = text.partition(". ")
    return first if stop else text.rstrip(".:")
