"""Tables of released tokenizers and generators, from the families' own records and recipes.

Sizes are those of the networks that recipes describe, built without storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from string import ascii_lowercase as LETTERS

import torch

from vistok.config import read_yaml, validate
from vistok.config.shipped import describe, shipped
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, Release, releases
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.jobs.quantize import quantized_config


def made(kind: str) -> dict[str, Release]:
    """The releases of tokenizers or generators, by name."""
    return {name: release for name, (family, release) in releases().items() if family.makes == kind}


def recipe_config(release: Release) -> TokenizerConfig:
    """The config of the tokenizer that a release's recipes make, the last of which may quantize."""
    *before, last = (validate(TrainConfig, read_yaml(file)).task for file in release.recipe)
    if last.kind == "quantize":
        return quantized_config(last, before[-1].tokenizer)
    return last.tokenizer


def recipe_tokenizer(release: Release) -> Tokenizer:
    """That tokenizer, without storage."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Tokenizer(recipe_config(release))


def positions(spec: TokenSpec) -> str:
    """Tokens of a whole sequence, and how it can be shortened."""
    if spec.prefix == "block" and len(set(spec.blocks)) == 1:
        return f"{spec.length} in {len(spec.blocks)} latent frames"
    if spec.prefix == "block":
        return f"{spec.length} in {len(spec.blocks)} scales"
    if spec.prefix == "per_block":
        return f"{len(spec.blocks)}..{spec.length}"
    return f"{spec.length}" if spec.prefix == "none" else f"1..{spec.length}"


def place(release: Release) -> str:
    """Where the weights lie: an id of the hub, or a link to a page."""
    if release.hub:
        return f"`{release.hub}`"
    if release.page and release.page.startswith("http"):
        return f"[{release.file}]({release.page})"
    return f"`{release.file}` of {release.page}" if release.page else release.file


@cache
def _spec(name: str) -> TokenSpec:
    return recipe_tokenizer(releases()[name][1]).spec()


def _of(kind: str, families: Iterable[str]) -> dict[str, Release]:
    wanted = set(families)
    return {
        name: release
        for name, release in made(kind).items()
        if not wanted or releases()[name][0].name in wanted
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def tokenizers(*families: str) -> str:
    """Table of the released tokenizers of some families, and notes on protocol and license."""
    found = _of("tokenizer", families)
    head = ["name", "tokens", "bits", "rFID", "gFID", "recipe"]
    rows, places, protocols = [], [], {}
    for name, release in found.items():
        spec = _spec(name)
        rfid = _number(release.rfid)
        if release.rfid is not None:
            letter = protocols.setdefault(release.protocol.described, LETTERS[len(protocols)])
            rfid += f"&nbsp;({letter})"
        recipe = ", ".join(f"`{Path(file).name}`" for file in release.recipe)
        bits = f"{spec.bits:,}" if spec.vocab else f"{spec.dim}&nbsp;numbers per&nbsp;token"
        rows.append([f"`{name}`", positions(spec), bits, rfid, _number(release.gfid), recipe])
        places.append((name, release))
    notes = [f"({letter}) {protocol}." for protocol, letter in protocols.items()]
    return "\n\n".join([_table(head, rows), _notes(notes), _licenses(places)])


@cache
def _generator(name: str) -> tuple[str, int]:
    """(the tokenizer of a released generator, its number of parameters)."""
    family, release = releases()[name]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        generator = Generator.from_description(family.config(release.config), name)
    return generator.tokenizer["name"], sum(p.numel() for p in generator.parameters())


def generators(*families: str) -> str:
    """Table of the released generators of some families."""
    found = _of("generator", families)
    rows = []
    for name, release in found.items():
        tokenizer, count = _generator(name)
        size = f"{count / 1e6:,.0f} M"
        recipe = f"`{Path(release.recipe[-1]).name}`"
        rows.append([f"`{name}`", f"`{tokenizer}`", size, _number(release.gfid), recipe])
    head = ["name", "tokens of", "parameters", "gFID", "recipe"]
    return "\n\n".join([_table(head, rows), _licenses(list(found.items()))])


def families() -> str:
    """Table of all families: releases by kind."""
    rows = []
    for name, family in FAMILIES.items():
        names = ", ".join(f"`{one.name}`" for one in family.releases)
        rows.append([f"`{name}`", family.makes, names])
    return _table(["family", "makes", "names"], rows)


def recipes(*folders: str) -> str:
    """List of the shipped configs below some folders, each with its first sentence."""
    lines = []
    for name, path in shipped().items():
        if any(name.startswith(f"{folder}/") or name == folder for folder in folders):
            lines += [f"`{name}`", f":   {describe(path)}.", ""]
    if not lines:
        raise ValueError(f"no shipped config lies below {', '.join(folders)}")
    return "\n".join(['<div class="keys" markdown>', "", *lines, "</div>"])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _notes(notes: list[str]) -> str:
    if not notes:
        return ""
    figures = (
        "rFID and gFID are the authors' own figures; gFID is that of 50,000 samples of their "
        "generator against ADM's reference batch. None of them has been measured here: "
        "`vistok eval verify NAME` does so with your copy of the images."
    )
    return "  \n".join([*notes, figures])


def _licenses(places: list[tuple[str, Release]]) -> str:
    """Where the weights lie and what may be done with them, folded away."""
    lines = []
    for name, release in places:
        file = f", `{release.file}`" if release.hub and release.file else ""
        lines += [f"    `{name}`", f"    :   {place(release)}{file}. {release.license}.", ""]
    return "\n".join(['??? note "Files and licenses"', "", '    <div class="keys" markdown>', "",
                      *lines, "    </div>"])  # fmt: skip
