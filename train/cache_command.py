"""`vistok cache RUN`: the tokens of a tokenizer, of the data that it was trained on."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import Field, create_model

from vistok import pretrained
from vistok.cli.key_command import key_command
from vistok.config import Config, ConfigError, validate
from vistok.config.errors import one_line_errors
from vistok.config.overrides import parse
from vistok.config.registry import entries
from vistok.core.verbosity import note
from vistok.data.addresses import check_addresses
from vistok.data.token_cache import TokenCache
from vistok.pretrained.open import CONVERTED
from vistok.storage.hub import CONFIG, local_path, read_json
from vistok.storage.trained import RUN_CONFIG
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig
from vistok.train.jobs.cache import CacheConfig
from vistok.train.jobs.run_data import with_run_data

_TOKENS = "tokens"  # folder of the caches, below that of the run


class _Common(Config):
    out: str | None = None
    """Folder of the caches train and val; null = RUN/tokens."""
    data: dict[str, Any] = {}
    """Keys of the data config, laid over those of the run: data.val_count=16; or other data:
    data.kind=folder data.path=my/images."""
    batch: int = Field(default=256, ge=1, le=2**24)
    """Images at a time."""
    workers: int = Field(default=0, ge=0, le=2**12)
    """Processes that read and decode images."""
    device: str | None = None
    """Device: cpu, cuda or cuda:1; null = a GPU if there is one."""


CacheOptions = create_model(
    "CacheOptions",
    __base__=_Common,
    __doc__="Config of `vistok cache`: its own keys, and those of the cache job.",
    **{
        name: (field.annotation, field)
        for name, field in CacheConfig.model_fields.items()
        if name not in ("kind", "tokenizer")
    },
)


def config_of(name: str, words: Sequence[str]) -> TrainConfig:
    """The job that caches a tokenizer's tokens; ConfigError for a key or data that cannot be."""
    options = validate(CacheOptions, parse(words), "vistok cache")
    run = run_of(name)
    task = options.model_dump(exclude=set(_Common.model_fields))
    tree: dict[str, Any] = {
        "name": run.resolve().name,
        "out": options.out or str(run / _TOKENS),
        "task": {"kind": "cache", "tokenizer": name, **task},
        "batch_size": options.batch,
        "workers": options.workers,
        "data": options.data or None,
    }
    tree, source = with_run_data(tree)
    if source is None:
        pretrained.locate(name, expect="tokenizer")  # a wrong name is told before missing data
    if not tree["data"] or "kind" not in tree["data"]:
        raise ConfigError(
            f"{name}: it names no data of its own; say which images to tokenize, e.g. "
            "data.kind=folder data.path=my/images"
        )
    if source is None:
        tree["data"] = {**_sides(name, tree["data"]["kind"]), **tree["data"]}
    config = validate(TrainConfig, tree, "vistok cache")
    if source is not None:
        check_addresses(config.data, source, parse(words).get("data"))
    return config


def run_of(name: str) -> Path:
    """The folder of a tokenizer's run; of models without one, a folder below runs/released."""
    path = local_path(name)
    if not path.is_dir():
        return CONVERTED / Path(name).stem
    return path.parent if path.name == "model" and (path.parent / RUN_CONFIG).is_file() else path


def _sides(name: str, kind: Any) -> dict[str, Any]:
    """The keys size and frames of a data config, as far as the kind has them, for a tokenizer."""
    known = entries("data").get(kind)
    folder = pretrained.saved_folder(name, expect="tokenizer")
    config = Tokenizer.read_config(read_json(folder / CONFIG), str(folder / CONFIG))
    height, width = config.image_size
    sides = {"size": height if height == width else [height, width], "frames": config.frames}
    fields = () if known is None else known.config.model_fields
    return {key: side for key, side in sides.items() if key in fields and side is not None}


def _use(device: str | None) -> None:
    """Hide the GPUs that were not asked for; ConfigError for another device."""
    if device is None:
        return
    found = re.fullmatch(r"cpu|cuda(:([0-9]{1,3}))?", device)
    if found is None:
        raise ConfigError(f"device={device}: expected cpu, cuda or cuda:NUMBER")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif found[2]:
        os.environ["CUDA_VISIBLE_DEVICES"] = found[2]


@key_command("RUN [KEY=VALUE]...", "vistok.train.cache_command:CacheOptions")
@one_line_errors
def cache(arguments: Sequence[str]) -> None:
    """Encode a whole data set once: the tokens that generators and language models train on.

    RUN is a tokenizer's run, and the data are those it was trained on; of any other MODEL say the
    data too. Training samples go to RUN/tokens/train, validation samples to RUN/tokens/val. A cache
    that was interrupted is resumed by the same command; one of other tokens is never replaced.

    \b
    Examples:
      vistok cache runs/mine
      vistok cache runs/mine limit=50000 crops=2 workers=4
      vistok cache titok-l32 data.kind=folder data.path=my/images
    """
    from vistok.train.loop import train

    names = [word for word in arguments if "=" not in word or Path(word).exists()]
    words = [word for word in arguments if word not in names]
    if len(names) != 1:
        given = f"{len(names)} given: {', '.join(names)}" if names else "none given"
        raise click.UsageError(f"name one tokenizer, a run or another MODEL ({given})")
    config = config_of(names[0], words)
    _use(validate(CacheOptions, parse(words), "vistok cache").device)
    folder = train(config)
    out = folder.parent / "generator"
    cached = TokenCache(folder / "train", verify=False).spec
    recipe = "quickstart/generator" if cached.vocab else "tiny/xar"
    note(f"next: vistok train {recipe} data.path={folder} out={out}")
