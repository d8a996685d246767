"""The start of a stage: parts of a tokenizer take the weights of saved or released ones, and
networks of losses those of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from torch import nn

from vistok.config import Config, ConfigError, PartOf
from vistok.core.errors import InputError
from vistok.frozen.vision import NamedNetwork, named
from vistok.storage.weights import read_safetensors
from vistok.tokenizer import Tokenizer
from vistok.train.checkpoint import files
from vistok.train.tasks import tower_init
from vistok.train.tasks.inflation import inflated
from vistok.train.tasks.teachers import open_tokenizer
from vistok.train.tasks.vit_init import PARTS, start_from_network


class InitConfig(Config):
    """A saved tokenizer or a frozen ViT, and the parts that take its weights; a string is the path
    of a tokenizer."""

    path: str | None = None
    """A run, a folder made by save_pretrained, hf:owner/name of the hub, or a released name
    (maskgit-vqgan)."""
    network: Annotated[Any, PartOf("vision")] | None = None
    """In place of a path: a frozen ViT by name (dinov2-b), or {kind: vit, network: dinov2-b,
    weights: FILE}. ViT encoders and decoders take what they share with it, resampled to their
    patches; a vision tower, which `parts` names, that of clip, siglip or vitamin."""
    parts: dict[str, str] = Field(
        default={"encoder": "encoder", "quantizer": "quantizer", "decoder": "decoder"}
    )
    """Names in this tokenizer: names in the saved one, of modules or single tensors
    (output_space.codebook: quantizer.codebook). A list stands for equal names."""

    inflate: bool = False
    """The path is of an image tokenizer and this one is of clips: 2D kernels become the last frame
    of causal 3D ones (MAGVIT-v2, Open-MAGVIT2), so that images pass as they did."""
    networks: tuple[str, ...] = ()
    """Networks of losses (discriminator), or modules inside one (discriminator.discriminator, which
    leaves LeCam's means out), that take their weights from the run's newest checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("network") is not None and "parts" not in value:
            return {**value, "parts": PARTS}
        return {"path": value} if isinstance(value, str) else value

    @field_validator("network", mode="before", json_schema_input_type=NamedNetwork)
    @classmethod
    def _network(cls, value: Any) -> Any:
        return named(value)

    @field_validator(
        "parts", mode="before", json_schema_input_type=dict[str, str] | tuple[str, ...]
    )
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_source(self) -> InitConfig:
        if (self.path is None) == (self.network is None):
            raise InputError("init: give either the path of a tokenizer or the name of a network")
        if self.inflate and self.path is None:
            raise InputError("init.inflate is for the path of an image tokenizer; leave it out")
        if self.networks and self.path is None:
            raise InputError("init.networks come from a run's checkpoint; give the run's path")
        return self

    @property
    def source(self) -> str:
        """Name of what the parts take their weights from."""
        if self.path is not None:
            return self.path
        return getattr(self.network, "network", self.network.kind)


def start_from(tokenizer: Tokenizer, init: InitConfig) -> str:
    """Copy the parts that `init` names; a line that tells which of them were taken.

    A part without tensors on both sides (an FSQ quantizer) has nothing to copy. ConfigError says
    which part does not fit, and if nothing at all was copied.
    """
    if init.network is not None:
        towers = init.network.kind in tower_init.KINDS
        start = tower_init.start_towers if towers else start_from_network
        sha256 = start(tokenizer, init.network, init.parts)
        return f"{', '.join(init.parts)} from {init.source} (sha256 {sha256})"
    source = open_tokenizer(init.path, "task.init")
    taken, empty = [], []
    for ours, theirs in init.parts.items():
        mine, given = _tensors(tokenizer, ours, init), _tensors(source, theirs, init)
        given = inflated(given, mine) if init.inflate else given
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
    line = f"{', '.join(taken)} from {init.path}{', inflated' if init.inflate else ''}"
    return f"{line}; {', '.join(empty)} holds no tensors, nothing to take" if empty else line


def networks_from(networks: Mapping[str, nn.Module], init: InitConfig) -> str | None:
    """Copy the networks of losses that `init` names from the run's newest checkpoint; a line that
    tells it, None if it names none. ConfigError says which does not fit."""
    if not init.networks:
        return None
    folder = Path(init.path) / "checkpoints"
    checkpoint = files.find(folder, "auto")
    if checkpoint is None:
        raise ConfigError(
            f"task.init: {folder} holds no checkpoint to take {', '.join(init.networks)} from; "
            "expected the folder of a run, or leave networks out"
        )
    for name in init.networks:
        network, _, inside = name.partition(".")
        if network not in networks:
            raise ConfigError(
                f"task.init: '{name}' names no network of task.losses; expected one of "
                f"{', '.join(networks) or 'none: no loss trains one'}"
            )
        path = checkpoint / f"{network}.safetensors"
        prefix = f"{inside}." if inside else ""
        own = networks[network].state_dict(keep_vars=True)
        mine = {key: one for key, one in own.items() if key.startswith(prefix)}
        given = {k: v for k, v in read_safetensors(path).items() if k.startswith(prefix)}
        if (
            not mine
            or set(mine) != set(given)
            or any(mine[k].shape != given[k].shape for k in mine)
        ):
            why = _difference(mine, given) if mine else "there is nothing of that name"
            raise ConfigError(f"task.init: {path} does not fit {name}: {why}")
        for key, tensor in mine.items():
            tensor.data.copy_(given[key])
    return f"{', '.join(init.networks)} from {checkpoint}"


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
