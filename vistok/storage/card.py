"""Model cards: the README.md of a saved model, for people and for the hub.

The header is the hub's metadata; below `vistok` it holds what was noted of the training, so that a
model that is opened and saved again keeps it. A card that somebody else wrote is never replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistok.config import bounded
from vistok.core.errors import InputError
from vistok.core.text import printable

CARD = "README.md"
_HERE = "path/of/this/folder"
_LARGEST = 2**20  # bytes of a card that is read
_KNOWN = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0"}  # licenses by the hub's name
_NOTES = ("data", "run", "steps")
_MIXIN = "[More Information Needed]"  # in cards of huggingface_hub's own template


@dataclass(frozen=True)
class CardFacts:
    """Contents of a card, by the model that it is about."""

    title: str
    summary: str
    """One sentence."""
    tags: Sequence[str]
    use: Sequence[str]
    """Lines of Python; NAME stands for the name that opens the model."""
    table: Mapping[str, str]
    weights: Sequence[str]
    """Sentences on origin, data and lineage."""
    config: Mapping[str, Any]
    license: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def card_text(
    facts: CardFacts, name: str | None = None, rows: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The text of a card below its header.

    Args:
        name: that opens the model; None = the folder that the card lies in.
        rows: of a results.json, of these weights.
    """
    import vistok  # for its version

    use = [line.replace("NAME", json.dumps(name or _HERE)) for line in facts.use]
    license = facts.license or "not stated: ask whoever made them before using them"
    lines = [
        f"# {printable(facts.title)}",
        facts.summary,
        "## Use",
        "\n".join(["```bash", "pip install vistok", "```"]),
        "\n".join(["```python", *use, "```"]),
        "## What it is",
        _table(("", ""), [(key, value) for key, value in facts.table.items()]),
        "## Weights",
        "\n".join(
            f"- {printable(line)}"
            for line in (
                f"License of the weights: {license}.",
                "License of the code (vistok): Apache-2.0.",
                *facts.weights,
            )
        ),
        "## Measured",
        _measured(rows)
        if rows
        else (
            "No measured numbers came with this card. `vistok eval` measures it and writes a "
            '`results.json`; `save_pretrained(folder, results="results.json")` puts them here.'
        ),
        "## Config",
        "<details><summary>All settings, as in config.json</summary>",
        "\n".join(["```json", json.dumps(facts.config, indent=2), "```"]),
        "</details>",
        "## Citation",
        "\n".join(
            [
                "```bibtex",
                "@software{vistok,",
                "  title = {vistok: compose, train, load and measure discrete image and video "
                "tokenizers},",
                f"  version = {{{vistok.__version__}}}",
                "}",
                "```",
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"


def header(facts: CardFacts) -> dict[str, Any]:
    """The metadata of the hub."""
    spdx = None if facts.license is None else facts.license.lower()
    license = {} if spdx is None else {"license": spdx if spdx in _KNOWN else "other"}
    notes = {name: facts.notes[name] for name in _NOTES if name in facts.notes}
    return {"library_name": "vistok", "tags": list(facts.tags), **license, "vistok": notes}


def is_ours(path: Path) -> bool:
    """True if a card was written here, or by the hub's template: such a one is replaced."""
    text = _read(path)
    return text is not None and ("\nvistok:" in text.split("\n---", 1)[0] or _MIXIN in text)


def read_notes(folder: Path) -> dict[str, str]:
    """What the card of a saved model notes of its training; {} where it says nothing."""
    from huggingface_hub import ModelCard

    text = _read(folder / CARD)
    if text is None or not is_ours(folder / CARD):
        return {}
    try:
        notes = ModelCard(text).data.to_dict().get("vistok")
    except Exception:  # a header that somebody edited: the hub's parser fails in its own ways
        return {}
    notes = notes if isinstance(notes, Mapping) else {}
    return {key: printable(str(notes[key]))[:400] for key in _NOTES if notes.get(key)}


def read_rows(path: str | Path, digest: str, kind: str) -> list[dict[str, Any]]:
    """Rows of a results.json that are of the weights with this sha256; InputError if none are.

    Args:
        kind: "tokenizer" or "generator".
    """
    data = bounded.read_json(Path(path))
    rows = data.get("rows") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: holds no rows; expected a results.json of `vistok eval`")
    own = [row for row in rows if (row.get("weights") or {}).get(kind) == digest]
    if not own:
        raise InputError(
            f"{path}: holds no numbers of these weights (sha256 {digest[:12]}); expected the "
            "results.json of an evaluation of this very model"
        )
    return own


def _measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table: metrics down, lengths of prefixes across, and how they were measured."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        value = row.get("value")
        if isinstance(value, int | float) and not row.get("point") and not row.get("setting"):
            length = "whole" if row.get("length") is None else str(row["length"])
            name = str(row.get("display") or row.get("metric"))
            found.setdefault(name, {}).setdefault(length, f"{value:.4g}")
    order = lambda one: (one == "whole", int(one) if one.isdigit() else 0)
    lengths = sorted({length for values in found.values() for length in values}, key=order)
    head = ("tokens", *lengths)
    body = [(name, *(values.get(one, "") for one in lengths)) for name, values in found.items()]
    first = rows[0]
    reference = first.get("reference") or {}
    where = ", ".join(
        str(reference[key]) for key in ("name", "split", "described") if reference.get(key)
    )
    said = [f"{first.get('count')} samples", where, f"precision {first.get('precision')}"]
    when = f"commit {first.get('commit')}, {str(first.get('date'))[:10]}"
    return _table(head, body) + "\n\n" + printable("; ".join([*filter(None, said), when])) + "."


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    cell = lambda text: printable(str(text)).replace("|", "\\|")
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in rows)


def _read(path: Path) -> str | None:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return path.read_text(encoding="utf-8", errors="replace")
