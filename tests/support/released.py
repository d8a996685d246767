"""The README's table of released tokenizers, from the tables of the families and their recipes.

python -m tests.support.released     prints it
"""

from __future__ import annotations

from pathlib import Path

import torch

from vistok.config import read_yaml, validate
from vistok.pretrained import Release, releases
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
HEAD = (
    *("released as", "import name", "tokens", "bits/image", "license", "recipe"),
    *("rFID", "gFID", "measured here"),
)


def recipe_tokenizer(release: Release) -> Tokenizer:
    """What a release's (last) recipe trains, without storage."""
    config = validate(TrainConfig, read_yaml(release.recipe[-1]))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Tokenizer(config.task.tokenizer)


def table() -> str:
    """The table and, below it, what its letters stand for."""
    protocols: dict[str, str] = {}  # protocol -> its letter
    rows = []
    for _, release in releases().values():
        letter = protocols.setdefault(release.protocol, "abcdefgh"[len(protocols)])
        spec = recipe_tokenizer(release).spec()
        continuous = f"continuous, {spec.dim} a token"
        gfid = "" if release.gfid is None else f"{release.gfid:.2f}"
        recipe = [Path(name).name for name in release.recipe]
        rows.append(
            (
                release.hub or f"[{release.file}]({release.page})",
                f"`{release.name}`",
                f"{spec.length}" if spec.prefix == "none" else f"1..{spec.length}",
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


if __name__ == "__main__":
    print(table())
