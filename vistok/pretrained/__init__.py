"""Models by name, and the weights of released tokenizers and generators in and out of vistok.

    open("vistok-128"), open("runs/quickstart"), open("hf:owner/name"), open("weights.bin")
    load("weights.bin", config=..., family=...) -> Tokenizer | Generator   # official weights only
    from_official(family, state_dict, config) -> Tokenizer | Generator
    to_official(model) -> (state_dict, config)

`tokenizers/` and `generators/` have one file per family of releases; network code is in `find` and
in `vistok.storage.hub` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vistok.config.errors import InputError
from vistok.pretrained import exchange
from vistok.pretrained.base import Family, Release
from vistok.pretrained.embedded import EMBEDDED
from vistok.pretrained.open import kind_of, locate, model_of, open, saved_folder
from vistok.pretrained.table import FAMILIES, family_of, release_of, releases

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "Family",
    "Release",
    "from_official",
    "kind_of",
    "load",
    "locate",
    "open",
    "release_of",
    "releases",
    "saved_folder",
    "to_official",
]


def from_official(
    family: str, state: Mapping[str, Tensor], config: Mapping[str, Any], source: str = "state dict"
) -> exchange.Model:
    """The model of an official state dict and config; errors as in `exchange`."""
    return exchange.from_official(family_of(family), state, config, source)


def to_official(model: exchange.Model, family: str | None = None) -> tuple[dict, dict]:
    """(state dict, config) in the official layout of a family, that of its import by default."""
    if family is None:
        if model.origin is None:
            raise InputError(
                "this model was not imported, so its official layout is not known; say "
                f"family=... ({', '.join(FAMILIES)})"
            )
        family = model.origin.family
    return exchange.to_official(family_of(family), model)


def load(
    name: str | Path,
    *,
    family: str | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    local_files_only: bool = False,
) -> exchange.Model:
    """A released model by name, or one from a local file or folder in the official format."""
    from vistok.pretrained.find import find

    return model_of(find(name, family, config, local_files_only))
