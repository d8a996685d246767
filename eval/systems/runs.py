"""Systems: run folders that training wrote, pretrained folders, and released names.

A run folder holds config.yaml, metrics.jsonl and model/; a pretrained folder is what lies inside
model/. A model is a tokenizer (its config.json is a TokenizerConfig) or a generator (its
config.json names the weights of the tokenizer whose tokens it learned).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from vistok.config import Config, ConfigError, PartOf, validate
from vistok.config.errors import UserError
from vistok.config.plugins import recorded
from vistok.config.registry import build
from vistok.config.yaml_files import read_plain_yaml
from vistok.core.errors import InputError
from vistok.data.addresses import addresses, check_addresses
from vistok.data.kinds.mix import MixConfig
from vistok.data.kinds.pairs import PairsConfig, originals_of
from vistok.eval.results.history import thinned
from vistok.eval.systems.history import RunError, read_history
from vistok.eval.systems.released import place
from vistok.pretrained.open import Kind, kind_of
from vistok.rates import sides_for
from vistok.storage import lineage
from vistok.storage.hub import nowhere, read_json
from vistok.storage.trained import unlike_its_run
from vistok.storage.weights import sha256
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

_EXPECTED = (
    "expected a run that training wrote, a folder made by save_pretrained, hf:owner/name of the "
    "hub, a released name such as titok-l32, or a results.json"
)


@dataclass(frozen=True)
class Run:
    """A folder with a model, read so far that mistakes show before anything is measured."""

    name: str
    folder: Path  # as given
    model: Path  # holds config.json and model.safetensors
    kind: Kind
    described: dict[str, Any]  # config.json
    sha256: str  # of model.safetensors
    config: dict[str, Any] | None  # config.yaml of the run; None for a pretrained folder
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)  # metrics.jsonl
    fit: str = ""  # of a generator whose tokenizer has other weights: why they go together

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_pretrained(str(self.model))

    @cached_property
    def generator(self) -> Any:
        from vistok.generators import load_generator

        return load_generator(self.model)

    @cached_property
    def codes_sha256(self) -> str:
        """Hash of the weights of a tokenizer that make its tokens."""
        return self.tokenizer.codes_sha256()

    @cached_property
    def lineage(self) -> lineage.Lineage:
        """The stages that led to a tokenizer's weights."""
        return lineage.read(self.described.get("lineage"), str(self.model / "config.json"))

    @property
    def release(self) -> str | None:
        """Released name of a tokenizer's weights, as `lineage.Identity` has it."""
        return self.tokenizer.release

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec() if self.kind == "tokenizer" else self.generator.spec

    def facts(self) -> dict[str, Any]:
        """The run's record in results.json."""
        module = self.tokenizer if self.kind == "tokenizer" else self.generator
        parts = getattr(module, "part_parameters", dict)()
        return {
            "name": self.name,
            "kind": self.kind,
            "folder": _text(self.folder),
            "sha256": self.sha256,
            "license": ", ".join(dict.fromkeys(module.licenses)) or None,
            "parameters": sum(p.numel() for p in module.parameters()),
            "parts": parts,
            "spec": self.spec.model_dump(mode="json"),
            "lengths": lengths_of(self.spec),
            "config": _json(self.config),
            "model": _json(self.described),
            "history": thinned(self.history),
        }


def _text(path: Path) -> str:
    """A path as text that every file can hold: bytes that are no UTF-8 show as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> Any:
    """Plain data as JSON: numbers that are not finite, dates and the like become their text."""
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):  # plain ones, of numbers that remember how they were typed
        if isinstance(value, kind):
            return kind(value) if math.isfinite(value) else str(value)
    return str(value)


def lengths_of(spec: TokenSpec) -> dict[str, dict[str, int]]:
    """{length: {tokens, bits}} of the evaluated prefixes: what a report needs of a spec."""
    bits = sum(spec.factor_bits)
    kept = {str(length): spec.positions_in(length) for length in spec.eval_lengths}
    return {length: {"tokens": n, "bits": n * bits} for length, n in kept.items()}


@dataclass(frozen=True)
class System:
    """A tokenizer and the generators that were trained on its tokens."""

    tokenizer: Run
    generators: tuple[Run, ...] = ()


def resolve(paths: Sequence[str | Path]) -> list[System]:
    """Read all runs and bring generators to their tokenizers; RunError says what does not fit."""
    if not paths:
        raise RunError("no run given; expected the folder of a run, e.g. runs/quickstart/tokenizer")
    folders = [place(path) for path in paths]
    if len({f.resolve() for f in folders}) < len(folders):
        raise RunError(f"a run is named twice in {', '.join(map(str, folders))}; name each once")
    runs = [read_run(f, name) for f, name in zip(folders, _names(folders), strict=True)]
    found = _missing_tokenizers(runs)
    if found:
        folders += found
        runs += [read_run(folder, "") for folder in found]
        named = zip(runs, _names(folders), strict=True)
        runs = [replace(run, name=name) for run, name in named]
    places = [run.model.resolve() for run in runs]
    for number, run in enumerate(runs):
        first = places.index(run.model.resolve())
        if first < number:
            raise RunError(f"{run.folder} and {folders[first]} are one model; name it once")
    tokenizers = [run for run in runs if run.kind == "tokenizer"]
    owned: dict[str, list[Run]] = {run.name: [] for run in tokenizers}
    for run in runs:
        if run.kind == "generator":
            for name, generator in _owners(run, tokenizers).items():
                owned[name].append(generator)
    return [System(run, tuple(owned[run.name])) for run in tokenizers]


def open_data(run: Run, changes: Mapping[str, Any] | None = None) -> Any:
    """The validation split that a tokenizer run is evaluated on: its own data, or `data`."""
    opened = open_split(run, changes, "val")
    wrong = misfit(run, opened)
    if wrong:
        raise RunError(f"{run.folder}: the data have {wrong}")
    config = run.tokenizer.config
    needed = config.text is not None and not all(how.optional for how in config.reading.values())
    if needed and not opened.texts:
        raise RunError(
            f"{run.folder}: this tokenizer reads text, and the data give none: use "
            "'data.caption=A photo of a {class}.', or another text of the data"
        )
    return opened


def sides_of(tokenizer: Any, data: Sequence[int] | None = None) -> tuple[int, ...]:
    """Sides of the samples of a tokenizer: (H, W) of images, (T, H, W) of clips.

    data: sides of the data's samples, whose frames a tokenizer of any frame rate takes.
    """
    plain = getattr(tokenizer, "encoder", None) is None  # nothing but a shape
    return tuple(tokenizer.shape.sides) if plain else sides_for(tokenizer, data)


def misfit(run: Run, opened: Any) -> str:
    """Text on samples that the run's tokenizer cannot take; "" if they fit."""
    sides = sides_of(run.tokenizer, getattr(opened, "sides", None))
    frames, size = getattr(opened, "frames", None), opened.size
    if len(sides) == 2 and frames is not None:
        return (
            f"clips of {frames} frames; this tokenizer takes images: give some with data.kind=..."
        )
    if len(sides) == 3 and frames != sides[0]:
        had = "images" if frames is None else f"clips of {frames} frames"
        wanted = f"clips of {sides[0]} frames: use data.frames={sides[0]}"
        return f"{had}; this tokenizer takes {wanted}, or another data.kind"
    if size is not None and tuple(size) != sides[-2:]:
        height, width = sides[-2:]
        had = f"{size[0]}x{size[1]} pixels"
        return f"{had}; this tokenizer takes {height}x{width}: use data.size={height}"
    return ""


def data_config(run: Run | None, changes: Mapping[str, Any] | None = None) -> Config:
    """The data config of a run: its own, or `changes`, or those laid over its own."""
    tree = None if run is None else (run.config or {}).get("data")
    changes = dict(changes or {})
    if "kind" in changes and (tree or {}).get("kind") != changes["kind"]:
        tree = {}  # another kind of data: nothing of the old one can apply
    if tree is None and "kind" not in changes:
        raise RunError(
            ("no data named" if run is None else f"{run.folder}: {_no_data(run)}")
            + "; say which images, e.g. data.kind=photos data.size=32"
        )
    if tree and tree.get("kind") in ("pairs", "mix") and "kind" not in changes:
        tree = _real(validate(_Data, {"data": tree}, "data").data).model_dump(mode="json")
    with recorded((run.config or {}).get("plugins") if run and tree else None, "data"):
        config = _real(validate(_Data, {"data": {**(tree or {}), **changes}}, "data").data)
    if tree and addresses(config):
        check_addresses(config, run.folder / "config.yaml", changes)
    return config


def _real(config: Config) -> Config:
    """The data config of real images: of pairs, whose inputs were generated, that of the
    originals; of a mix the one that validates."""
    if isinstance(config, MixConfig):
        return _real(config.validating)
    return originals_of(config) if isinstance(config, PairsConfig) else config


def _no_data(run: Run) -> str:
    whole = run.config is not None
    return "its config.yaml names no data" if whole else "a pretrained folder names no data"


def open_split(
    run: Run | None,
    changes: Mapping[str, Any] | None = None,
    split: Literal["train", "val"] = "val",
) -> Any:
    """A split as evaluation sees it, of a run's data or of `changes` alone: read by index,
    cropped at the center (or as `adm`), never padded or mirrored."""
    opened = build(data_config(run, changes)).open(split, augment=False)
    where = "data" if run is None else run.folder
    if opened.spec is not None:
        raise RunError(f"{where}: its data are cached tokens; give images with data.kind=...")
    return opened


class _Data(Config):
    data: Annotated[Any, PartOf("data")]


def read_run(folder: Path, name: str) -> Run:
    """The run or pretrained folder `folder`, called `name`; RunError says what is wrong with it."""
    if not folder.is_dir():
        raise RunError(nowhere(folder, _EXPECTED, folders=True))
    model = folder / "model" if (folder / "config.yaml").is_file() else folder
    if not (model / "config.json").is_file():
        inside = "" if model == folder else "; training writes it when it finishes"
        raise RunError(
            f"{folder}: no {(model / 'config.json').relative_to(folder)}{inside}; expected a "
            "finished run or a folder made by save_pretrained"
        )
    weights = model / "model.safetensors"
    if not weights.is_file():
        raise RunError(f"{folder}: no {weights.relative_to(folder)}; save the model again")
    kind, described = _kind(model)
    config, digest = None, sha256(weights)
    if (folder / "config.yaml").is_file():
        config = _written_config(folder / "config.yaml")
        if reason := unlike_its_run(folder, digest):
            raise RunError(
                f"{folder}: {reason}; finish the run with its training command, or evaluate "
                f"{model} by itself with data.kind=..."
            )
    history = read_history(folder / "metrics.jsonl")
    return Run(name, folder, model, kind, described, digest, config, history)


def _written_config(path: Path) -> dict[str, Any]:
    """The config that training wrote, resolved; nothing in it is resolved again."""
    try:
        config = read_plain_yaml(path)
    except ConfigError as error:
        reason = str(error).removeprefix(f"{path}: cannot be read: ")
        raise RunError(f"{path}: not the YAML that training writes ({reason})") from None
    if not isinstance(config, dict) or not isinstance(config.get("data") or {}, dict):
        raise RunError(f"{path}: not a training config; expected keys, and keys below `data`")
    lost = _cut(config, path)
    if lost:
        raise RunError(
            f"{path}: it ends before {lost[0]}, or lost it; training writes every key: put the "
            "file back as training wrote it (the same command writes it again)"
        )
    return config


def _cut(config: Mapping[str, Any], path: Path) -> list[str]:
    """Keys that a config lost which training wrote: it has every key, in the order of the schema.
    Configs that were written by hand may have fewer."""
    keys = list(TrainConfig.model_fields)
    given = [key for key in config if key in keys]
    if 1 < len(given) < len(keys) and given == keys[: len(given)]:
        return keys[len(given) :]
    if set(keys) <= set(config) and config.get("data"):
        with recorded(config.get("plugins"), str(path)):
            whole = validate(_Data, {"data": config["data"]}, "data").data.model_dump()
        return [f"data.{key}" for key in whole if key not in config["data"]]
    return []


def _kind(model: Path) -> tuple[Kind, dict[str, Any]]:
    path = model / "config.json"
    data = read_json(path)
    kind = kind_of(data)
    if kind is None:
        raise RunError(
            f"{path}: neither a tokenizer (encoder, quantizer, decoder) nor a generator (kind, "
            f"spec, tokenizer): it has {', '.join(list(data)[:6]) or 'nothing'}"
        )
    if kind == "tokenizer":
        Tokenizer.read_config(data, str(path))  # the error names the field that is wrong
    return kind, data


def _missing_tokenizers(runs: Sequence[Run]) -> list[Path]:
    """Folders of the tokenizers whose tokens generators learned, by the generators' records, where
    no tokenizer is among the runs and the recorded one is still what it was."""
    if any(run.kind == "tokenizer" for run in runs):
        return []
    found: dict[Path, Path] = {}
    for run in runs:
        name = (run.described.get("tokenizer") or {}).get("name")
        try:
            folder = place(str(name))
            tokenizer = read_run(folder, str(name))
            fits = lineage.pairing(lineage.read_record(run.described["tokenizer"]), tokenizer).fits
        except (UserError, OSError):
            continue  # `_owners` says which one has to be named
        if fits:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _owners(generator: Run, tokenizers: Sequence[Run]) -> dict[str, Run]:
    """{tokenizer: the generator} for every tokenizer whose tokens it learned: one of the very same
    weights, and those whose decoder alone is another.

    Beside several it is named once for each: its own name stays with the first.
    """
    try:
        wanted = lineage.read_record(generator.described["tokenizer"])
    except InputError as error:
        raise RunError(f"{generator.model / 'config.json'}: {error}; save it again") from None
    pairs = {run.name: lineage.pairing(wanted, run) for run in tokenizers}
    fitting = [name for name, pair in pairs.items() if pair.fits]
    fitting.sort(key=lambda name: bool(pairs[name].text))  # the very same weights first
    if not fitting:
        given = ", ".join(f"{run.folder} ({pairs[run.name].text})" for run in tokenizers)
        raise RunError(
            f"{generator.folder}: a generator of the tokens of '{wanted['name']}' (sha256 "
            f"{wanted['sha256'][:8]}), but the runs given are {given or 'no tokenizer'}; name that "
            "tokenizer's folder too"
        )
    named = {name: f"{name}/{generator.name}" for name in fitting[1:]}
    return {
        name: replace(generator, name=named.get(name, generator.name), fit=pairs[name].text)
        for name in fitting
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [_text(Path(*p[-depth:])) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def class_names(generator: Any) -> list[str]:
    """Names of a generator's classes; their numbers where it has none; [] = unconditional."""
    return list(generator.classes) or [str(label) for label in range(generator.num_classes)]
