"""The data of a tokenizer's run, for the jobs that cache its tokens, redraw a share of them, or
quantize its latents.

A cache of other images than the tokenizer was trained on is seldom meant, and nothing in the cache
would look wrong: so the data are those of the tokenizer's run unless the config says others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vistok.config import ConfigError, validate_part
from vistok.config.plugins import listed, recorded
from vistok.config.yaml_files import read_plain_yaml
from vistok.data.kinds.pairs import originals_of
from vistok.storage.trained import RUN_CONFIG
from vistok.train.jobs.preserve import made_by

_KINDS = ("cache", "preserve", "quantize")


def with_run_data(tree: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """(the config of a training with the data filled in, the file that they are from).

    Only a cache, preserve or quantize task whose `data` names no kind is changed: keys that it
    gives (data.val_count=16) are laid over the data of the run. Of a run that trained on pairs
    their originals are taken. None: nothing was taken. ConfigError for a run whose config cannot be
    read.
    """
    task, given = tree.get("task"), tree.get("data")
    if not isinstance(task, Mapping) or task.get("kind") not in _KINDS:
        return tree, None
    if given is not None and (not isinstance(given, Mapping) or "kind" in given):
        return tree, None
    path = _config_of(_tokenizer(task))
    if path is None:
        return tree, None
    own = read_plain_yaml(path)
    data = own.get("data") if isinstance(own, Mapping) else None
    if isinstance(data, Mapping) and data.get("kind") == "pairs":  # the images they were made of
        with recorded(own.get("plugins"), str(path)):
            data = originals_of(validate_part("data", dict(data), f"{path}: data")).model_dump()
    if isinstance(data, Mapping) and data.get("kind") == "mix":
        kinds = [str(one.get("kind")) for one in data.get("sets") or () if isinstance(one, Mapping)]
        raise ConfigError(
            f"{path}: it trained on a mix of {', '.join(kinds)}; say which data set to read, e.g. "
            f"data.kind={kinds[0] if kinds else 'folder'} and its other keys"
        )
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{path}: it names no data; give the data set to tokenize, e.g. "
            "'data={kind: folder, path: my/images, size: 32}'"
        )
    needed = [*listed(tree.get("plugins")), *listed(own.get("plugins"))]
    plugins = {"plugins": needed} if needed else {}  # of the data's kind, too
    return {**tree, **plugins, "data": {**data, **(given or {})}}, path


def _tokenizer(task: Mapping[str, Any]) -> str:
    """Name of the tokenizer of a job, which may be that of its generator; "" if neither says."""
    name, generator = task.get("tokenizer", task.get("init")), task.get("generator")
    if name is None and generator is not None:
        name = made_by(str(generator)).get("name")
    return str(name or "")


def _config_of(tokenizer: str) -> Path | None:
    """config.yaml of the run that a tokenizer's name means: its folder, or that of its model."""
    folder = Path(tokenizer).expanduser()
    for place in (folder, folder.parent if folder.name == "model" else folder):
        if (place / RUN_CONFIG).is_file():
            return place / RUN_CONFIG
    return None
