"""The README's tables of released tokenizers and generators, from the tables of the families and
their recipes.

python -m tests.support.released     prints it
"""

from __future__ import annotations

from pathlib import Path

import torch

from vistok.config import read_yaml, validate
from vistok.generators import Generator
from vistok.pretrained import Release, releases
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
HEAD = (
    *("released as", "import name", "tokens", "bits/image", "license", "recipe"),
    *("rFID", "gFID", "measured here"),
)


def made(kind: str) -> dict[str, Release]:
    """The releases of tokenizers or generators, by name."""
    return {name: release for name, (family, release) in releases().items() if family.makes == kind}


def recipe_tokenizer(release: Release) -> Tokenizer:
    """What a release's (last) recipe trains, without storage."""
    config = validate(TrainConfig, read_yaml(release.recipe[-1]))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Tokenizer(config.task.tokenizer)


def positions(spec: TokenSpec) -> str:
    """Tokens of a whole sequence, and into what it may be cut."""
    if spec.prefix == "block":
        return f"{spec.length} in {len(spec.blocks)} scales"
    return f"{spec.length}" if spec.prefix == "none" else f"1..{spec.length}"


def table() -> str:
    """The table and, below it, what its letters stand for."""
    protocols: dict[str, str] = {}  # protocol -> its letter
    rows = []
    for release in made("tokenizer").values():
        letter = protocols.setdefault(release.protocol, "abcdefgh"[len(protocols)])
        spec = recipe_tokenizer(release).spec()
        continuous = f"continuous, {spec.dim} a token"
        gfid = "" if release.gfid is None else f"{release.gfid:.2f}"
        recipe = [Path(name).name for name in release.recipe]
        rows.append(
            (
                release.hub or f"[{release.file}]({release.page})",
                f"`{release.name}`",
                positions(spec),
                f"{spec.bits:,}" if spec.vocab else continuous,
                release.license,
                ", ".join(f"`{file}`" for file in recipe),
                "" if release.rfid is None else f"{release.rfid:.2f} ({letter})",
                gfid,
                "",
            )
        )
    rule = tuple("---" for _ in HEAD)
    lines = ["| " + " | ".join(row) + " |" for row in (HEAD, rule, *rows)]
    notes = [f"({letter}) {protocol}." for protocol, letter in protocols.items()]
    notes.append(
        "rFID and gFID are the authors' own; gFID is that of 50,000 samples of their generator "
        "against ADM's reference batch."
    )
    return "\n".join([*lines, "", *notes])


def generator_table() -> str:
    """The table of generators; figures are the authors' own."""
    head = (
        *("released as", "import name", "tokens of", "parameters", "license", "recipe"),
        *("gFID", "measured here"),
    )
    rows = []
    for name, release in made("generator").items():
        family = releases()[name][0]
        described = family.config(release.config)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            generator = Generator.from_description(described, name)
        count = sum(p.numel() for p in generator.parameters())
        rows.append(
            (
                f"{release.hub or release.page} {release.file}",
                f"`{name}`",
                f"`{generator.tokenizer['name']}`",
                f"{count / 1e6:.0f}M",
                release.license,
                f"`{Path(release.recipe[-1]).name}`",
                "" if release.gfid is None else f"{release.gfid:.2f}",
                "",
            )
        )
    rule = tuple("---" for _ in head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


if __name__ == "__main__":
    print(table(), generator_table(), sep="\n\n")
