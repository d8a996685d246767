"""`vistok info`: the parts, parameters and tokens of a model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from vistok.cli.completion import models_and_configs
from vistok.cli.outputs import show
from vistok.config.errors import ConfigError, InputError, one_line_errors
from vistok.config.overrides import leaves, text_of


@click.command()
@click.argument("model", metavar="MODEL|CONFIG|FILE", shell_complete=models_and_configs)
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--tokenizer", help="Of a FILE: the tokenizer that made it, or is to encode it.")
@one_line_errors
def info(model: str, words: tuple[str, ...], tokenizer: str | None) -> None:
    """Print the parts, parameters, tokens and bits of MODEL, a tokenizer or a generator.

    Of a CONFIG (a YAML file, or a name that `vistok list configs` shows) print what training it
    would do, as `vistok train CONFIG --dry-run`; KEY=VALUE changes its keys. Of a FILE, a .vtk file
    or a video, print its frames, rate, sides and length; with --tokenizer also its tokens and bits,
    and which numbers of frames can be encoded.

    \b
    Examples:
      vistok info titok-l32
      vistok info runs/mine
      vistok info clip.mp4 --tokenizer runs/mine
      vistok info quickstart task.tokenizer.encoder.latents.count=32
    """
    from vistok.cli import info_files

    if info_files.is_file(model):
        if words:
            raise InputError(f"{words[0]}: {model} is a file, and keys are those of a CONFIG")
        for name, value in info_files.facts(model, tokenizer).items():
            show(f"{name:24} {value}")
        return
    if tokenizer is not None:
        raise InputError(f"--tokenizer {tokenizer}: expected with a .vtk file or a video only")
    if _is_config(model):
        program = importlib.import_module("vistok.train.__main__")
        program.main([model, *words, "--dry-run"], "vistok info", standalone_mode=False)
        return
    if words:
        raise InputError(f"{words[0]}: {model} is a model, and keys are those of a CONFIG")
    from vistok import pretrained
    from vistok.tokenizer import Tokenizer

    found = pretrained.open(model)
    rows = _tokenizer(found) if isinstance(found, Tokenizer) else _generator(found)
    for name, value in rows.items():
        show(f"{name:24} {value}")


def _is_config(name: str) -> bool:
    """True for a YAML file and for the name of a shipped config, unless a folder has that name."""
    if Path(name).suffix in (".yaml", ".yml"):
        return True
    from vistok.config.shipped import find

    if Path(name).exists():
        return False
    try:
        find(name)
    except ConfigError:
        return False
    return True


def _tokens(spec: Any, sample: str) -> dict[str, Any]:
    prefixes = "whole only"
    if spec.prefix != "none":
        every = spec.lengths is None
        listed = ", ".join(map(str, spec.eval_lengths))
        prefixes = f"any from 1 to {spec.max_prefix}" if every else listed
    return {
        f"tokens/{sample}": spec.length,
        "vocabulary": " x ".join(map(str, spec.vocab)) or f"continuous, width {spec.dim}",
        f"bits/{sample}": spec.bits,
        "prefixes": prefixes,
    }


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    spec, config, shape = tokenizer.spec(), tokenizer.config, tokenizer.shape
    sample = "clip" if shape.is_clip else "image"
    height, width = shape.image_size
    rows = {sample: " x ".join(map(str, shape.sides)), **_tokens(spec, sample)}
    if tokenizer.any_count:
        rows["other numbers of tokens"] = "any, by `length` of encode"
    if tokenizer.encoder.anchor is not None:
        rows["period"] = f"{shape.frames / tokenizer.encoder.anchor:.4g} s at any frame rate"
    rows |= {
        "bpp": f"{spec.bits / (height * width * (shape.frames or 1)):.4f}",
        "encoder": config.encoder.kind,
        "quantizer": config.quantizer.kind,
        "decoder": config.decoder.kind,
        "sampling": _settings(tokenizer.sampling),
        "regularizers": ", ".join(r.kind for r in config.regularizers) or "none",
        "license": config.license or "not stated",
        "weights of the tokens": tokenizer.codes_sha256()[:12],
        **_lineage(tokenizer.lineage),
    }
    return rows | {f"{n} parameters": f"{c:,}" for n, c in tokenizer.part_parameters().items()}


def _lineage(lineage: Any) -> dict[str, str]:
    """The stages that led to a tokenizer's weights, the newest first."""
    rows: dict[str, str] = {}
    for number, step in enumerate(reversed(lineage), 1):
        name = "lineage" if number == 1 else f"lineage, {number} back"
        parents = ", ".join(_parent(one) for one in step.parents)
        changed = ", ".join(step.changed) or "nothing"
        rows[name] = f"{step.kind} ({step.stage}) of {parents}: {changed} changed"
    return rows


def _parent(parent: Any) -> str:
    license = "" if parent.license is None else f", license {parent.license}"
    return f"{parent.name} (sha256 {parent.sha256[:12]}{license})"


def _generator(generator: Any) -> dict[str, Any]:
    return {
        "generator": generator.config.kind,
        "tokenizer": generator.tokenizer.get("name", "not stated"),
        "weights of its tokens": generator.tokenizer.get("codes_sha256", "not stated")[:12],
        "classes": ", ".join(generator.classes) or generator.num_classes or "none",
        **_tokens(generator.spec, "sample"),
        "sampling": _settings(generator.sampling),
        "presets": ", ".join(generator.presets),
        "license": ", ".join(generator.licenses) or "not stated",
        "parameters": f"{sum(p.numel() for p in generator.parameters()):,}",
    }


def _settings(sampling: Any) -> str:
    """Default settings as the words that change them; "none" where nothing is sampled."""
    if sampling is None:
        return "none"
    values = leaves(sampling.model_dump(mode="json"), "sampling")
    return " ".join(f"{key}={text_of(value)}" for key, value in values) or "no settings"
