"""The start of a stage: parts of a tokenizer take the weights of saved or released ones."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator
from torch import nn

from vistok.config import Config, ConfigError
from vistok.tokenizer import Tokenizer
from vistok.train.tasks.teachers import open_tokenizer


class InitConfig(Config):
    """A saved tokenizer, and the parts that take its weights; a string is its path."""

    path: str
    """A run, a folder made by save_pretrained, hf:owner/name of the hub, or a released name
    (maskgit-vqgan)."""
    parts: dict[str, str] = Field(
        default={"encoder": "encoder", "quantizer": "quantizer", "decoder": "decoder"}
    )
    """Names in this tokenizer: names in the saved one, of modules or single tensors
    (output_space.codebook: quantizer.codebook). A list stands for equal names."""

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("parts", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value


def start_from(tokenizer: Tokenizer, init: InitConfig) -> str:
    """Copy the parts that `init` names; a line that tells which of them were taken.

    A part without tensors on both sides (an FSQ quantizer) has nothing to copy. ConfigError says
    which part does not fit, and if nothing at all was copied.
    """
    source = open_tokenizer(init.path, "task.init")
    taken, empty = [], []
    for ours, theirs in init.parts.items():
        mine, given = _tensors(tokenizer, ours, init), _tensors(source, theirs, init)
        if set(mine) != set(given) or any(mine[k].shape != given[k].shape for k in mine):
            raise ConfigError(
                f"task.init: {theirs} of {init.path} does not fit {ours}: "
                f"{_difference(mine, given)}; list the parts that do in `parts`"
            )
        for name, tensor in mine.items():
            tensor.data.copy_(given[name])
        (taken if mine else empty).append(ours)
    if not taken:
        raise ConfigError(
            f"task.init: {', '.join(empty) or 'parts'} of {init.path} holds no tensors, so that "
            "nothing would be taken; name parts that do, such as encoder and decoder"
        )
    line = f"{', '.join(taken)} from {init.path}"
    return f"{line}; {', '.join(empty)} holds no tensors, nothing to take" if empty else line


def _tensors(tokenizer: nn.Module, name: str, init: InitConfig) -> dict[str, Any]:
    """Parameters and saved buffers of a module by their names inside it; of a tensor, itself."""
    saved = tokenizer.state_dict(keep_vars=True)
    if name in saved:
        return {"": saved[name]}
    if not name or name not in dict(tokenizer.named_modules()):
        parts = ", ".join(dict.fromkeys(key.split(".")[0] for key in saved))
        raise ConfigError(
            f"task.init: '{name}' names no part of the tokenizer ({init.path}); expected one of "
            f"{parts}, or a module or tensor inside one"
        )
    return {k[len(name) + 1 :]: v for k, v in saved.items() if k.startswith(f"{name}.")}


def _difference(mine: dict[str, Any], given: dict[str, Any]) -> str:
    missing, extra = sorted(set(mine) - set(given)), sorted(set(given) - set(mine))
    if missing:
        return f"it lacks {missing[0]} ({len(missing)} of {len(mine)} tensors)"
    if extra:
        return f"{extra[0]} has no place here ({len(extra)} tensors)"
    name = next(k for k in mine if mine[k].shape != given[k].shape)
    return f"{name} has shape {tuple(given[name].shape)}, expected {tuple(mine[name].shape)}"
