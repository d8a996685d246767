"""Tokenizers that losses learn from: found by path or released name, frozen, never saved."""

from __future__ import annotations

from pathlib import Path

import torch

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.frozen.files import hollow
from vistok.storage.hub import CONFIG, model_folder, read_json
from vistok.storage.weights import content_sha256
from vistok.tokenizer import Tokenizer, TokenizerConfig

TEACHER = "task.losses: teacher"


def load_teacher(name: str) -> tuple[Tokenizer, str]:
    """(tokenizer, sha256 of its tensors) of a saved folder, a run, a released name or a hub id.

    The hash is of names and numbers, so that it is the same for a release and its conversion. On
    the meta device it has no weights and no hash. ConfigError says what is missing.
    """
    if hollow():
        return _hollow(name), ""
    teacher = open_tokenizer(name)
    return teacher, content_sha256(teacher.state_dict())


def open_tokenizer(name: str, key: str = TEACHER) -> Tokenizer:
    """The tokenizer of a saved folder, a run, a released name or a hub id.

    Args:
        key: the config key that errors name.
    """
    if _released(name, key):
        return pretrained.load(name)
    return Tokenizer.from_pretrained(str(model_folder(name)))


def _released(name: str, key: str = TEACHER) -> bool:
    """True for a released name; ConfigError for a name that is neither released nor a folder."""
    if Path(name).exists() or "/" in name:
        return False
    try:
        pretrained.release_of(name)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}; or the folder of a tokenizer") from None
    return True


def _hollow(name: str) -> Tokenizer:
    """The same network without its weights; a released one is known without being here."""
    if _released(name):
        family, release = pretrained.release_of(name)
        if release.config is not None:
            tree = family.config(release.config)
            return Tokenizer(validate(TokenizerConfig, tree, f"teacher {name}"))
        with torch.device("cpu"):  # its config lies with its weights
            return pretrained.load(name).to("meta")
    folder = Path(model_folder(name))
    if not folder.is_dir():  # a hub id
        with torch.device("cpu"):
            return Tokenizer.from_pretrained(str(folder)).to("meta")
    return Tokenizer.from_description(read_json(folder / CONFIG), str(folder / CONFIG))
