"""Tokenizers that losses learn from: found by path or released name, frozen, never saved."""

from __future__ import annotations

import torch

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, shipped, validate
from vistok.frozen.files import hollow
from vistok.pretrained.open import Located
from vistok.storage.hub import CONFIG, read_json
from vistok.storage.weights import content_sha256
from vistok.tokenizer import Tokenizer, TokenizerConfig

TEACHER = "task.losses: teacher"


def load_teacher(name: str) -> tuple[Tokenizer, str]:
    """(tokenizer, sha256 of its tensors) behind a name that `vistok.pretrained.open` takes.

    The hash is of names and numbers, so that it is the same for a release and its conversion. On
    the meta device it has no weights and no hash. ConfigError says what is missing.
    """
    if hollow():
        return _hollow(name), ""
    teacher = open_tokenizer(name)
    return teacher, content_sha256(teacher.state_dict())


def open_tokenizer(name: str, key: str = TEACHER) -> Tokenizer:
    """The tokenizer behind any name (`vistok.pretrained.open`); errors begin with `key`."""
    try:
        return pretrained.open(name, expect="tokenizer")
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from None


def _hollow(name: str) -> Tokenizer:
    """The same network without its weights; a released one is known without being here."""
    place = _locate(name, TEACHER)
    if place.folder is not None:
        config = place.folder / CONFIG
        return Tokenizer.from_description(read_json(config), str(config))
    config = described(name, TEACHER)
    if config is not None:
        return Tokenizer(config)
    with torch.device("cpu"):  # its config lies with its weights
        return open_tokenizer(name).to("meta")


def described(name: str, key: str = TEACHER) -> TokenizerConfig | None:
    """The config of the tokenizer behind a name, no weights read; errors begin with `key`.

    None for official weights of no released name: only they themselves tell it.
    """
    place = _locate(name, key)
    if place.folder is not None:
        path = place.folder / CONFIG
        return Tokenizer.read_config(read_json(path), str(path))
    if place.official not in pretrained.releases():
        return None
    family, release = pretrained.release_of(name)
    if release.config is not None:
        tree = family.config(release.config)
    elif release.recipe and shipped.folder() is not None:  # it trains the very same network
        tree = read_yaml(release.recipe[-1])["task"]["tokenizer"]
    else:
        return None
    return validate(TokenizerConfig, tree, f"{key}: {name}")


def _locate(name: str, key: str) -> Located:
    try:
        return pretrained.locate(name, expect="tokenizer")
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from None
