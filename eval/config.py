"""The config of an evaluation: one schema for the command line, config files and studies."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, create_model, field_validator

from vistok.config import Config, ConfigError, read_yaml, validate
from vistok.config.names import nearest
from vistok.config.overrides import parse
from vistok.core.errors import InputError
from vistok.eval.images import default_batch
from vistok.eval.protocols.base import PROTOCOLS, Protocol
from vistok.eval.reference.agreement import FIELDS
from vistok.eval.results.metrics import METRICS
from vistok.eval.resumable import EVERY

_MODULES = (
    *("rfid", "pfid", "gfid", "rate_distortion", "robust", "order", "linear_probe"),
    *("rfvd", "gfvd", "over_time", "adaptive_length", "image_grids", "ifid", "tokbench"),
    *("alignment", "code_usage"),
)
for _name in _MODULES:
    importlib.import_module(f"vistok.eval.protocols.{_name}")

DEFAULT = ("rfid", "rfvd", "over_time", "pfid", "gfid", "gfvd", "image_grids")


class Common(Config):
    """Keys of an evaluation that several protocols share."""

    report: str | None = None
    """HTML file to write; tables and results.json go beside it. null: numbers are only printed."""
    overwrite: bool = False
    """true: files that are not an earlier version of the report are replaced too."""
    name: tuple[str, ...] | dict[str, str] = ()
    """Names of the runs in the report: a list in the order of the command line, or {old: new}; by
    default the ends of their paths."""
    columns: tuple[str, ...] = ()
    """Metrics of report.tex's table of all runs, in this order: [PSNR, rFID, gFID]; [] = the
    headline ones as far as a line goes."""
    protocols: tuple[str, ...] = DEFAULT
    """Protocols to measure; the report says which of them do not fit a system, and why."""
    features: tuple[str, ...] = ("vistok-cnn",)
    """Networks of Fréchet distances: vistok-cnn, inception, dinov2, clip; one name, or several that
    look at each image in the same pass: [inception, dinov2]."""
    weights: str | dict[str, str] | None = None
    """Weight file of that network, if it is not in the usual place; of several {name: file}."""
    perceptual: tuple[str, ...] = ("vistok-cnn",)
    """Perceptual networks: vistok-cnn, lpips-vgg, lpips-alex; [] for none."""
    data: dict[str, Any] = {}
    """Keys of the data config, laid over those of each run: data.kind=photos data.size=32."""
    limit: int | None = Field(default=None, ge=2)
    """Use only the first so many images; null = all."""
    batch: int | None = Field(default=None, ge=1)
    """Images at a time; null = 32, on a GPU 256."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random draws."""
    workers: int = Field(default=0, ge=0)
    """Processes that read images."""
    device: str | None = None
    """Device: cpu, cuda, ...; null = a GPU if there is one."""
    sampling: dict[str, Any] = {}
    """Changes of the generator's own sampling settings: sampling.temperature=0.9."""
    decoder_sampling: dict[str, Any] = {}
    """Changes of the sampling settings of decoders that sample: decoder_sampling.steps=25."""
    reference: str | dict[str, str] | None = None
    """File of reference statistics that gFID is measured against; of several networks {name: file}
    for each of them."""
    reference_rfid: bool = False
    """true: rFID is measured against the reference file too."""
    allow_mismatch: tuple[str, ...] = ()
    """Fields in which that file may differ: network, crop, filter, size, split, count, data."""
    cache: str | None = None
    """Folder of the result cache; null = eval_cache beside the report."""
    save_every: float = Field(default=EVERY, ge=0)
    """Seconds after which a long pass is saved in the cache, to resume from after a kill."""
    fresh: bool = False
    """true: measure again what the cache holds."""

    @field_validator(
        *("protocols", "features", "perceptual", "allow_mismatch", "columns"),
        mode="before",
        json_schema_input_type=str | tuple[str, ...],
    )
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        """A single name stands for a list of one."""
        return (value,) if isinstance(value, str) else value

    @field_validator(
        "name", mode="before", json_schema_input_type=str | tuple[str, ...] | dict[str, str]
    )
    @classmethod
    def _one_run(cls, value: Any) -> Any:
        """The name of the only run stands for a list of one."""
        return (value,) if isinstance(value, str) else value

    @field_validator("protocols")
    @classmethod
    def _known_protocols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in PROTOCOLS:
                raise InputError(f"unknown protocol '{name}'; valid: {', '.join(PROTOCOLS)}")
        return value

    @field_validator("features")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise InputError("expected one network or more, like features=vistok-cnn")
        return tuple(dict.fromkeys(value))

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in METRICS:
                raise InputError(f"unknown metric '{name}'; {nearest(name, tuple(METRICS))}")
        return value

    @field_validator("allow_mismatch")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FIELDS:
                raise InputError(f"unknown field '{name}'; valid: {', '.join(FIELDS)}")
        return value

    @field_validator("sampling")
    @classmethod
    def _guidance_elsewhere(cls, value: dict[str, Any]) -> dict[str, Any]:
        """gFID is measured at each scale of its own list, so a scale given here would be lost."""
        if "guidance" in value:
            scale = value["guidance"]
            raise InputError(
                f"guidance={scale}: gFID has a list of its own; use gfid.guidance=[{scale}]"
            )
        return value

    @field_validator("report")
    @classmethod
    def _html(cls, value: str | None) -> str | None:
        if value is not None and Path(value).suffix != ".html":
            raise InputError("expected a file that ends in .html")
        return value

    @property
    def batch_size(self) -> int:
        """Images at a time."""
        return self.batch or default_batch(self.torch_device)

    @property
    def torch_device(self) -> torch.device:
        """The device; a GPU if none is named and there is one."""
        default = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(self.device or default)

    @property
    def cache_folder(self) -> Path | None:
        """Folder of the result cache; None keeps nothing."""
        if self.cache is not None:
            return Path(self.cache)
        return None if self.report is None else Path(self.report).parent / "eval_cache"


def _group(protocol: Protocol) -> tuple[Any, Any]:
    """The keys of a protocol, as a field of the evaluation's config."""
    summary = (type(protocol).__doc__ or "").strip().splitlines()[0]
    return protocol.Config, Field(default=protocol.Config(), description=summary)


EvalConfig = create_model(
    "EvalConfig",
    __base__=Common,
    __doc__="Config of an evaluation: the common keys, and a group of keys for each protocol.",
    **{name: _group(protocol) for name, protocol in PROTOCOLS.items()},
)


def read_config(model: type[Config], overrides: Sequence[str]) -> Any:
    """A config from `key=value` arguments; `config=FILE` names a YAML file under them."""
    files = [one.partition("=")[2] for one in overrides if one.startswith("config=")]
    rest = [one for one in overrides if not one.startswith("config=")]
    if len(files) > 1:
        raise ConfigError(f"config={files[1]}: a second config file; give one")
    tree = read_yaml(files[0], rest) if files else parse(rest)
    return validate(model, tree, files[0] if files else "command line")


def split_arguments(model: type[Config], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(runs, overrides) of a command line.

    An argument `key=value` whose key (up to its first dot) is known is an override, anything else a
    run; an existing path always is a run. ConfigError for a key that is unknown.
    """
    known = ("config", *model.model_fields)
    runs: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals or Path(argument).exists():
            runs.append(argument)
        elif key.replace("[", ".").split(".")[0] in known:
            overrides.append(argument)
        elif "/" in key:
            runs.append(argument)
        else:
            raise ConfigError(f"{key}: unknown key, value {argument!r}; {nearest(key, known)}")
    return runs, overrides
