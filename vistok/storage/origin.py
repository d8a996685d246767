"""Origin of imported weights: the record that gives them back in their official layout.

Kept beside the model as origin.json and, where the official state dict holds tensors that no part
of ours reads, origin.safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.config.bounded import read_json
from vistok.core.errors import InputError
from vistok.storage.files import write_text
from vistok.storage.weights import read_safetensors, write_safetensors

RECORD, TENSORS = "origin.json", "origin.safetensors"


@dataclass(frozen=True)
class Origin:
    """Record of an import.

    Attributes:
        family: name of the family whose key table was used.
        config: the official config, as it came.
        inert: official tensors that no part of ours reads.
        types: official dtypes that are not float32, by key ("torch.float16").
        release: released name, if it was opened by one.
        license: license of the weights, if it is known.
        inside: place of the weights in a file that held others too ("ema").
    """

    family: str
    config: dict[str, Any]
    inert: dict[str, Tensor] = field(default_factory=dict, repr=False)
    types: dict[str, str] = field(default_factory=dict, repr=False)
    release: str | None = None
    license: str | None = None
    inside: str | None = None

    def save(self, folder: Path) -> None:
        """Write origin.json, and origin.safetensors if there are inert tensors."""
        facts = {
            "family": self.family,
            "release": self.release,
            "license": self.license,
            "config": self.config,
            "types": self.types,
        }
        if self.inside is not None:
            facts["inside"] = self.inside
        write_text(folder / RECORD, json.dumps(facts, indent=2) + "\n")
        if self.inert:
            write_safetensors(self.inert, folder / TENSORS)

    @classmethod
    def load(cls, folder: Path) -> Origin | None:
        """The record of a saved model; None if it was not imported. InputError if it is broken."""
        path = folder / RECORD
        if not path.is_file():
            return None
        try:
            facts = read_json(path)
            inert = read_safetensors(folder / TENSORS) if (folder / TENSORS).is_file() else {}
            return cls(inert=inert, **_checked(facts))
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).removeprefix(f"{path}: ").split())
            raise InputError(f"{path}: not a record of an import ({reason})") from None


def _checked(facts: Any) -> dict[str, Any]:
    """The facts of an origin.json, whose values have their types; InputError for others."""
    kinds = {"family": str, "config": dict, "types": dict}
    kinds |= {"release": str | None, "license": str | None}
    if isinstance(facts, dict) and "inside" in facts:
        kinds["inside"] = str
    if not isinstance(facts, dict) or set(facts) != set(kinds):
        raise InputError(f"expected the keys {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind):
            raise InputError(f"{name}: got {str(facts[name])[:60]!r}")
    for key, name in facts["types"].items():
        known = isinstance(name, str) and getattr(torch, name.removeprefix("torch."), None)
        if not isinstance(known, torch.dtype):
            raise InputError(f"types: {key}: got {str(name)[:60]!r}; expected a type of torch")
    return facts
