"""Measure a released model by the protocol of its published figures, and compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from vistok.config import Config, ConfigError, read_yaml, validate
from vistok.config.names import nearest
from vistok.config.overrides import apply, merge, parse
from vistok.core.errors import InputError
from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.eval.results.rows import Results, Row
from vistok.eval.verify.compare import Verdict, verdict
from vistok.generators import Generator
from vistok.pretrained.base import Family, Release
from vistok.pretrained.published import Preset
from vistok.pretrained.table import release_of, releases


class VerifyConfig(Config):
    """Keys of `vistok eval verify`; every key of `vistok eval` may follow."""

    model: str | None = None
    """Weights to measure: a file or folder in the official layout, or a saved model. null = those
    of the release, from the hub or its local cache."""
    tokenizer: str | None = None
    """Of a generator: the tokenizer of its tokens, as `model`. null = the released one."""
    spread: float | None = Field(default=None, ge=0)
    """Difference that still agrees, beside the rounding of the published number; null = the
    assumption that `--list` shows."""


def preset_of(name: str) -> tuple[Family, Release, Preset]:
    """(family, release, its published figure); InputError for a release that has none, or none
    whose protocol is known."""
    family, release = release_of(name)
    preset = release.published(family.makes)
    if preset is None:
        raise InputError(
            f"{name}: its authors published no figure of these weights that vistok knows; `vistok "
            "eval verify --list` shows those that can be verified"
        )
    if preset.protocol.unknown:
        figure = f"{preset.metric} {preset.value:.{preset.digits}f}"
        raise InputError(f"{name}: {figure} cannot be verified: {preset.protocol.unknown}")
    return family, release, preset


def all_presets() -> tuple[Preset, ...]:
    """Every published figure, those that cannot be verified too, in the order of the releases."""
    found = (release.published(family.makes) for family, release in releases().values())
    return tuple(preset for preset in found if preset is not None)


def settings_of(preset: Preset) -> dict[str, Any]:
    """The tree of an evaluation's config that measures by the protocol of a preset."""
    protocol, tree = preset.protocol, {"perceptual": []}
    generated = preset.metric.startswith("gFID")
    tree["protocols"] = ["gfid" if generated else "rfid"]
    words = dict(protocol.settings)
    if generated:  # one set of samples, as papers have it
        words |= {"gfid.samples": protocol.count, "gfid.seeds": 1}
    known = {
        "features": protocol.network,
        "data.crop": None if generated else protocol.crop,
        "data.filter": None if generated else protocol.filter,
        "data.size": None if protocol.size is None else protocol.size[-1],
    }
    words |= {key: value for key, value in known.items() if value is not None}
    for key, value in words.items():
        place, names = tree, key.split(".")
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = value
    return tree


def verify(
    words: Sequence[str], device: str, say: Callable[[str], None] = lambda line: None
) -> tuple[Verdict, Results]:
    """Measure what a command line names: the verdict, and all results.

    Args:
        words: the release's name and KEY=VALUE words. device: where the models run.
    """
    name, own, tree = _split(words)
    family, release, preset = preset_of(name)
    kind = (tree.get("data") or {}).get("kind")
    if kind is None:
        raise InputError(f"{name}: no images named; {_images(preset)}")
    below = settings_of(preset)
    below.setdefault("data", {})["kind"] = kind  # `merge` drops what is of another kind
    tree = merge(below, tree)
    if preset.protocol.reference is not None and not tree.get("reference"):
        raise InputError(
            f"{name}: published gFIDs are distances to {preset.protocol.reference}; give the file: "
            f"reference={preset.protocol.reference}"
        )
    config = validate(EvalConfig, {**tree, "device": device}, "command line")
    results = evaluate(_places(family, release, own), config, say)
    if own.spread is not None:
        preset = replace(preset, protocol=replace(preset.protocol, spread=own.spread))
    row = _chosen(preset, results)
    if row is None:
        raise InputError(f"{name}: {preset.metric} was not measured: {_why(results)}")
    return verdict(preset, row, _own_sampling(results)), results


def _split(words: Sequence[str]) -> tuple[str, VerifyConfig, dict[str, Any]]:
    """(name of the release, own keys, tree of the evaluation's keys) of a command line."""
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        given = ", ".join(names) or "none"
        raise ConfigError(
            f"{given}: expected the name of one release; `vistok eval verify --list` shows them"
        )
    known = ("config", *VerifyConfig.model_fields, *EvalConfig.model_fields)
    overrides = [word for word in words if "=" in word]
    for word in overrides:
        key = word.partition("=")[0].replace("[", ".").split(".")[0]
        if key not in known:
            raise ConfigError(f"{key}: unknown key, value {word!r}; {nearest(key, known)}")
    own = [word for word in overrides if word.partition("=")[0] in VerifyConfig.model_fields]
    rest = [word for word in overrides if word not in own and not word.startswith("config=")]
    files = [word.partition("=")[2] for word in overrides if word.startswith("config=")]
    tree = read_yaml(files[0], rest) if files else apply({}, rest)
    return names[0], validate(VerifyConfig, parse(own), "command line"), tree


def _places(family: Family, release: Release, own: VerifyConfig) -> list[str]:
    """What is evaluated: the model, and of a generator its tokenizer."""
    model = own.model or release.name
    if family.makes == "tokenizer":
        if own.tokenizer is not None:
            raise InputError(f"tokenizer={own.tokenizer}: {release.name} is one; use model=")
        return [model]
    return [own.tokenizer or _tokenizer_of(family, release), model]


def _tokenizer_of(family: Family, release: Release) -> str:
    """Released name of the tokenizer whose tokens a generator makes."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        generator = Generator.from_description(family.config(release.config), release.name)
    return generator.tokenizer["name"]


def _images(preset: Preset) -> str:
    """How to name the images of a protocol."""
    size = preset.protocol.size
    said = "" if size is None else f" (they are cropped to {size[-1]} pixels)"
    return f"give ImageNet's validation images{said}: data.kind=folder data.val_path=DIR"


def _chosen(preset: Preset, results: Results) -> Row | None:
    """The row that a preset is compared with: at full length, and of samples with the guidance
    that comes with the release, where that was measured."""
    rows = [row for row in results.find(preset.metric) if row.plain]
    longest = max((row.length or 0 for row in rows), default=0)
    rows = [row for row in rows if (row.length or 0) == longest]
    own = _own_sampling(results).get("generator", {}).get("guidance")
    own = tuple(own) if isinstance(own, list) else own
    return next(iter([row for row in rows if row.guidance == own] or rows[-1:]), None)


def _own_sampling(results: Results) -> dict[str, dict[str, Any]]:
    """Sampling settings that came with the models."""
    kinds = {"tokenizer": "decoder", "generator": "generator"}
    return {
        kinds[run["kind"]]: sampling
        for run in results.runs
        if isinstance(sampling := (run.get("model") or {}).get("sampling"), dict)
    }


def _why(results: Results) -> str:
    reasons = [one["reason"] for one in results.facts.get("skipped", ())]
    return "; ".join(reasons) or "no such row came of it"
