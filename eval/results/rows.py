"""A measured number and everything it depends on: the rows of results.json.

Two numbers compare only when their protocols agree: feature network, reference set, samples, crop
and filter, length, decode settings, condition, precision. A row carries all of them.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

SCHEMA = 2
_READ = (1, 2)  # 2 added fields that 1 does not have; all of them have defaults


class Record(BaseModel):
    """Base of what results.json is made of: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(Record):
    """A frozen network that looked at the images."""

    name: str
    sha256: str
    preprocess: str = ""
    """What it does to pixels before it looks; names the preset where there are several."""


class Reference(Record):
    """The set of real images: its name, its manifest hash, and how many of it were used."""

    name: str
    split: str
    manifest: str
    count: int
    described: str = ""


class Decode(Record):
    """How token sequences were made and decoded. None: not applicable."""

    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    steps: int | None = None


class Perturbation(Record):
    """A cell of pFID: what was asked, what the codebook allows, what share of tokens changed."""

    alpha: float
    delta: int
    delta_asked: int
    changed: float
    expected: float


class Damage(Record):
    """What was done to the tokens before they were decoded."""

    kind: Literal["bit_flip", "drop_tail", "drop_head"]
    share: float
    """Of the bits that were flipped, or of the positions that were lost."""


class Row(Record):
    """One number."""

    metric: str
    protocol: str = ""
    """Name of the protocol that measured it: rfid, pfid, gfid, ..."""
    value: float | None
    """None: infinite or undefined; `note` says why."""
    run: str
    weights: str = ""
    """sha256 of the run's model.safetensors."""
    features: Network | None = None
    reference: Reference
    samples: int
    crop: str = ""
    filter: str = ""
    size: tuple[int, int] | None = None
    length: int | None = None
    """Kept prefix in the spec's steps (positions or blocks)."""
    decode: Decode = Decode()
    condition: str = "none"
    precision: str = "fp32"
    perturbation: Perturbation | None = None
    damage: Damage | None = None
    tap: str | None = None
    """Features a linear probe looked at."""
    codec: str | None = None
    """What made the bytes: packed or entropy-coded tokens, JPEG, WebP, AVIF."""
    bytes: float | None = None
    """Mean size of a image at which this was measured."""
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    date: str = ""
    note: str = ""

    @computed_field
    @property
    def display(self) -> str:
        """The name that a table shows: `rFID[vistok-cnn, photos]`, never a bare `rFID`."""
        return display(self.metric, self.features, self.reference)


class Results(Record):
    """results.json as a whole. `facts` holds what is no number: histograms, images, command."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    rows: tuple[Row, ...] = ()
    runs: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)

    def find(self, metric: str, run: str | None = None, **wanted: Any) -> list[Row]:
        """Rows of a metric (and run) whose fields equal `wanted`, in order."""
        return [
            row
            for row in self.rows
            if row.metric == metric
            and (run is None or row.run == run)
            and all(getattr(row, key) == value for key, value in wanted.items())
        ]

    def save(self, path: str | Path) -> None:
        """Write the JSON (renamed into place); numbers that are not finite are refused."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        data = self.model_dump(mode="json", by_alias=True)
        draft.write_text(json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        os.replace(draft, path)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a results.json; a one-line ValueError for anything else."""
        path = Path(path)
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
        version = data.get("schema") if isinstance(data, dict) else None
        if version not in _READ:
            raise ValueError(f"{path}: schema {version!r}; expected {SCHEMA}: evaluate again")
        for row in data.get("rows", ()):
            row.pop("display", None)  # follows from the rest
        data["schema"] = SCHEMA
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: {where}: {first['msg']}; evaluate again") from None


def json_schema() -> dict[str, Any]:
    """JSON schema of results.json; committed as results.schema.json, which a test keeps true."""
    return Results.model_json_schema(by_alias=True, mode="serialization")


def display(metric: str, features: Network | None, reference: Reference) -> str:
    inside = [] if features is None else [features.name]
    return f"{metric}[{', '.join([*inside, reference.name])}]"


def finite(value: float) -> float | None:
    """JSON has no infinity: None, and the row's note says why."""
    return float(value) if math.isfinite(value) else None


def provenance() -> dict[str, Any]:
    """versions, commit and date of this process, as `Row` fields."""
    import numpy
    import torch

    from vistok import __version__

    return {
        "versions": {
            "vistok": __version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Commit of the checkout that this file lies in; `-dirty` if files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
