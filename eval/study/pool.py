"""A pool: one folder with the runs of several studies. A name and a seed stand for one config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistok.config import ConfigError
from vistok.config.overrides import leaves
from vistok.config.words import shown
from vistok.config.yaml_files import read_plain_yaml
from vistok.storage.trained import RUN_CONFIG
from vistok.train.config import TrainConfig

_MOST = 4  # keys that an error names
_JOBS_OWN = "data"  # a job may take over that of the run that it reads


def check_pool(runs: Sequence[TrainConfig]) -> None:
    """ConfigError, one line that names the keys, if a run of the same name and seed but of another
    config lies in the pool already."""
    for run in runs:
        path = Path(run.folder) / RUN_CONFIG
        if not path.is_file():
            continue
        asked = run.model_dump(mode="json")
        kept = read_plain_yaml(path)
        if apart := _differences(asked, kept if isinstance(kept, dict) else {}):
            told = "; ".join(apart[:_MOST])
            more = f" and {len(apart) - _MOST} more" if len(apart) > _MOST else ""
            raise ConfigError(
                f"runs.{run.name}: {run.folder} of the pool was made with another config: {told}"
                f"{more}; give this run another name, or the study another pool"
            )


def _differences(asked: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """ "steps is 40, there 60" for each key."""
    ours, theirs = (dict(leaves(tree, lists=True)) for tree in (asked, kept))
    if asked.get(_JOBS_OWN) is None:
        theirs = {k: v for k, v in theirs.items() if k.split(".")[0] != _JOBS_OWN}
        ours.pop(_JOBS_OWN, None)
    told = lambda tree, key: shown(tree[key]) if key in tree else "not there"
    keys = dict.fromkeys((*ours, *theirs))
    return [
        f"{key} is {told(ours, key)}, there {told(theirs, key)}"
        for key in keys
        if ours.get(key, _Nothing) != theirs.get(key, _Nothing)
    ]


class _Nothing:
    """In place of a key that is not there."""
