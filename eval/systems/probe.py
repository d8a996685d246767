"""The AR probe: a small autoregressive generator of a fixed recipe, trained on cached tokens.

It makes gFID a property of the tokenizer: every tokenizer gets the same network, budget and data.
A recipe is a training config of configs/probes by name (`tiny`, `s`, `b`), or a YAML file of one's
own. Tokens of the training images (center crops; of endless views as many as the budget will see)
are cached, then the probe is trained by the train command. A finished probe lies below its
tokenizer's run folder under a name with the hash of all that it depends on, and is found again.

Every discrete spec gets (`vocabulary`) one softmax where a position has at most 2**14 codes, joined
from its factors or bits if need be; else independent bits for binary codes, and for everything else
factors of at most 2**14 codes, each predicted from those before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistok.config import ConfigError, read_yaml, shipped, validate
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.data import DataError, Dataset, TokenCache
from vistok.data.kinds.tokens import CachedTokensConfig
from vistok.eval.systems.runs import Run, System, data_config, read_run
from vistok.eval.systems.training import finished, train
from vistok.runtime import distributed
from vistok.storage.files import write_text
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

PRESETS = ("tiny", "s", "b")
ELSEWHERE = Path("runs/probes")  # probes of folders that are no runs: they are not written to
_SOFTMAX = 2**14  # codes of one softmax: wider ones would be most of a small probe


@dataclass(frozen=True)
class Recipe:
    """A probe's recipe: its name and the training config, as plain data without names of places."""

    name: str  # "probe-tiny"
    tree: dict[str, Any]

    @property
    def seen(self) -> int:
        """Samples that training looks at, repetitions counted."""
        return self.tree["steps"] * self.tree["batch_size"]


def recipe(which: str) -> Recipe:
    """A preset (tiny, s, b) or a YAML file; ConfigError if it trains no generator."""
    known = which in PRESETS
    if not known and not which.endswith(".yaml"):
        raise ConfigError(
            f"gfid.probe={which}: no such probe; expected {', '.join(PRESETS)}, or a .yaml file"
        )
    path = shipped.find(f"probes/probe-{which}") if known else Path(which)
    config = validate(TrainConfig, read_yaml(path), str(path))
    if config.task.kind != "generator" or config.data is not None:
        raise ConfigError(
            f"{path}: a probe is a generator without data (task.kind={config.task.kind}); its "
            "tokens come from the tokenizer that is evaluated"
        )
    tree = config.model_dump(mode="json")
    for place in ("name", "out", "seed", "data"):
        del tree[place]
    return Recipe(path.stem, tree)


def vocabulary(spec: TokenSpec) -> tuple[int, ...] | None:
    """The factors that the probe predicts at a position; None = `spec.vocab` itself.

    ValueError for a spec that no probe can model: the message is the reason.
    """
    if not spec.vocab:
        raise InputError("continuous tokens: an AR probe predicts codes")
    whole = math.prod(spec.vocab)
    if whole <= _SOFTMAX and spec.branches == 1:
        return None if len(spec.vocab) == 1 else (whole,)
    if set(spec.vocab) == {2}:
        return None
    parts = tuple(part for size in spec.vocab for part in _split(size))
    return None if parts == spec.vocab else parts


def _split(size: int) -> tuple[int, ...]:
    """Factors of at most 2**14 whose product is `size`, as equal as they can be."""
    if size <= _SOFTMAX:
        return (size,)
    small = next((d for d in range(math.isqrt(size), 1, -1) if size % d == 0), None)
    if small is None:
        raise InputError(f"a vocabulary of {size} codes has no factors; one softmax is too wide")
    return (*_split(small), *_split(size // small))


def with_probe(system: System, config: EvalConfig) -> System:
    """The system with its probe among the generators, trained if it is not there yet.

    A tokenizer that can have none is returned as it is: `no_probe` says why.
    """
    opened = _open(system.tokenizer, config)
    if isinstance(opened, str):
        return system
    chosen = recipe(config.gfid.probe)
    folder = _trained(system.tokenizer, config, chosen, opened.record())
    probe = read_run(folder, f"{system.tokenizer.name}/{chosen.name}")
    return replace(system, generators=(*system.generators, probe))


def no_probe(run: Run, config: EvalConfig) -> str | None:
    """Why a tokenizer cannot have a probe; None if it can."""
    opened = _open(run, config)
    return opened if isinstance(opened, str) else None


def _open(run: Run, config: EvalConfig) -> Dataset | str:
    """The images whose tokens a probe learns, or why there can be no probe."""
    try:
        vocabulary(run.spec)
    except ValueError as error:
        return str(error)
    try:
        opened = build(_images(run, config)).open("train", augment=False)
    except DataError as error:
        return f"no training images to learn from: {error}"
    return opened


def probe_folder(run: Run, facts: dict[str, Any], name: str) -> Path:
    """Folder of the probe of these facts, finished or not."""
    text = json.dumps(facts, sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    home = run.folder / "probes" if run.config is not None else ELSEWHERE
    return home / f"{name}-{key}"


def _images(run: Run, config: EvalConfig) -> Any:
    return data_config(run, config.data)


def _trained(run: Run, asked: EvalConfig, chosen: Recipe, record: dict[str, Any]) -> Path:
    """The folder of the finished probe. `record`: of the images whose tokens it learns."""
    images = _images(run, asked)
    facts = {
        "tokenizer": run.sha256,
        "images": record,
        "recipe": chosen.tree,
        "seed": asked.seed,
    }
    folder = probe_folder(run, facts, chosen.name)
    if distributed.rank() > 0:
        # No collective: its patience is shorter than a training.
        while not _done(folder):
            time.sleep(0.5)
    elif not _done(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "probe.json", json.dumps(facts, indent=1, default=str) + "\n")
        on_cpu = asked.torch_device.type == "cpu"
        if not _cached(folder):
            train(_cache_config(run, folder, images, chosen, asked), on_cpu)
        config = _generator_config(run, folder, chosen, asked.seed)
        if not finished(config):
            train(config, on_cpu)
    return folder


def _done(folder: Path) -> bool:
    """The folder's name holds the hash of its whole recipe, so an ended training is the right one;
    the summary is what training writes last."""
    return (folder / "model/model.safetensors").is_file() and (folder / "summary.json").is_file()


def _cached(folder: Path) -> bool:
    try:
        for split in ("train", "val"):
            TokenCache(folder / "tokens" / split)
    except DataError:  # unfinished, or not begun
        return False
    return True


def _cache_config(
    run: Run, folder: Path, images: Any, chosen: Recipe, asked: EvalConfig
) -> TrainConfig:
    tree = {
        "name": "tokens",
        "out": str(folder / "tokens"),
        "task": {
            "kind": "cache",
            "tokenizer": str(run.model.resolve()),
            # Views of photographs are endless; other sets may be sorted by class, so all of one.
            "limit": chosen.seen if images.kind == "photos" else None,
        },
        "data": images.model_dump(mode="json"),
        "batch_size": asked.batch or 256,
        "workers": asked.workers,
        "trackers": [],
    }
    return validate(TrainConfig, tree, f"tokens of {run.name}")


def _generator_config(run: Run, folder: Path, chosen: Recipe, seed: int) -> TrainConfig:
    tokens = folder / "tokens"
    data = CachedTokensConfig(path=str(tokens / "train"), val_path=str(tokens / "val"))
    task = json.loads(json.dumps(chosen.tree["task"]))
    joined = vocabulary(run.spec)
    if joined is not None:
        task["generator"] |= {"regroup": joined, "head": None}
    if _unlabeled(tokens / "train"):
        task["generator"]["condition"] |= {"classes": 0}
    tree = {**chosen.tree, "name": chosen.name, "out": str(folder), "seed": seed, "task": task}
    return validate(TrainConfig, {**tree, "data": data.model_dump()}, f"probe of {run.name}")


def _unlabeled(path: Path) -> bool:
    """True if a sample lacks its class: then the probe cannot be conditional."""
    import numpy as np

    labels = np.load(path / "labels.npy", mmap_mode="r", allow_pickle=False)
    return bool((labels < 0).any())
