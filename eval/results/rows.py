"""A measured number and everything it depends on: the rows of results.json.

Two numbers compare only when their protocols agree: feature network, reference set, count, crop
and filter, length, setting, sampling, condition, precision. A row carries all of them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from vistok.config.bounded import read_json
from vistok.core.errors import InputError
from vistok.eval.results.facts import Described, Scale
from vistok.storage.files import write_text

SCHEMA = 3
LARGEST = 2**28  # bytes of a results file: histories of long runs and image grids lie in it


class Record(BaseModel):
    """Base class of the parts of results.json: frozen, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Network(Record):
    """A frozen network that looked at the images."""

    name: str
    sha256: str
    preprocess: str = ""
    """Treatment of pixels before the network; names the preset where there are several."""


class Reference(Record):
    """The set of real images: its name, its manifest hash, and how many of it were used."""

    name: str
    split: str
    manifest: str
    count: int
    described: str = ""


class Floor(Record):
    """The distance of other real images to the reference: what a perfect generator would have."""

    value: float
    """Their Fréchet distance to the reference of the row."""
    count: int = Field(ge=0)
    """How many of them; a row of another count is not judged by it, since the distance falls with
    the count."""
    reference: Reference
    """Which images they are."""


class Row(Record):
    """One measured number."""

    metric: str
    """Name of the metric; `results/metrics.py` has its title, unit and meaning."""
    protocol: str = ""
    """Name of the protocol that measured it: rfid, pfid, gfid, ..."""
    value: float | None
    """The number; None if it is not finite or was not measured."""
    not_finite: Literal["", "inf", "-inf", "nan"] = ""
    """The value that JSON has no number for; "" where `value` holds it or nothing was measured."""
    interval: tuple[float, float] | None = None
    """Confidence interval (95 %) of the value's expectation at this count of images, without any
    correction of bias; None where none is computed."""
    varies: Literal["", "seeds", "images", "clips"] = ""
    """What the interval is over: seeds of the sampling, or the images (clips) of the set as a
    sample of all that there could be; "" without an interval."""
    seeds: tuple[int, ...] = ()
    """Sampling seeds whose mean the value is; () for a number of one seed, or of no draws."""
    each: tuple[float | None, ...] = ()
    """The value at each of `seeds`; None where it is not finite."""
    floor: Floor | None = None
    """Of a Fréchet distance: what other real images have; None where none is measured."""
    run: str
    """Name of the run that was measured."""
    weights: dict[str, str] = Field(default_factory=dict)
    """sha256 of model.safetensors of each model behind the number: tokenizer, generator."""
    setting: dict[str, Any] = Field(default_factory=dict)
    """Keys of the protocol's own config that the number depends on, as JSON."""
    point: dict[str, Any] = Field(default_factory=dict)
    """Place on the protocol's grid or curve: {alpha, delta} of pFID, {damage, share}, {tap},
    {codec}, {frame}; empty for a number that stands for itself."""
    measured: dict[str, float] = Field(default_factory=dict)
    """Other quantities measured at that point: bytes, share of changed tokens, ..."""
    features: Network | None = None
    reference: Reference
    count: int = Field(ge=0)
    """Number of images (or samples) behind the value."""
    few: str = ""
    """Reason why the value is governed by the small number of images; "" if it is not. Tables mark
    such a number."""
    bias: float | None = None
    """Of a Fréchet distance: about what two independent sets of these sizes of the real images'
    distribution are apart; None where there are fewer images than features."""
    crop: str = ""
    filter: str = ""
    size: tuple[int, ...] | None = None
    """Sides of the images: (H, W), of clips (T, H, W)."""
    length: int | None = None
    """Kept prefix: positions, blocks, or positions of each block, as the spec's `prefix` says."""
    sampling: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of whatever sampled: {generator: {guidance, ...}, decoder: {steps, ...}}."""
    seed: int | None = None
    """Seed of the random draws behind the number, the first of `seeds` if there are several; None
    if there are none."""
    condition: str = "none"
    precision: str = "fp32"
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    date: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _readable(self) -> Row:
        """Fields that tables and charts take for granted."""
        if self.not_finite and self.value is not None:
            raise InputError(f"value={self.value} and not_finite={self.not_finite}: one of them")
        if self.size is not None and len(self.size) not in (2, 3):
            raise InputError(f"size={self.size}: expected (H, W), of clips (T, H, W)")
        if len(self.each) != len(self.seeds):
            raise InputError(f"each={self.each}: expected a value for each of seeds={self.seeds}")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise InputError(f"interval={self.interval}: expected the lower end first")
        scales = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        if self.guidance is not None and not all(_is_number(scale) for scale in scales):
            raise InputError(f"guidance={self.guidance!r}: expected a number, or a list of them")
        for key, (texts, numbers, measured) in _POINTS.items():
            if key not in self.point:
                continue
            bad = [name for name in texts if not isinstance(self.point[name], str)]
            bad += [name for name in numbers if not _is_number(self.point.get(name))]
            bad += [f"measured.{name}" for name in measured if name not in self.measured]
            if bad:
                raise InputError(f"point={self.point}: {bad[0]} is not as it was written")
        return self

    @computed_field
    @property
    def display(self) -> str:
        """The name that a table shows: `rFID[vistok-cnn, photos]`, never a bare `rFID`."""
        return display(self.metric, self.features, self.reference, self.preset)

    @property
    def preset(self) -> str:
        """Named conventions of the protocol behind the number, a filter and frame rates that are
        not the data's; "" for none and for `own`."""
        given = [self.setting.get(key) for key in ("preset", "filter")]
        names = [found for found in given if isinstance(found, str) and found not in ("", "own")]
        for key, verb in (("read_fps", "read"), ("target_fps", "shown")):
            if _is_number(rate := self.setting.get(key)):
                names.append(f"{verb} at {rate:g} fps")
        return ", ".join(names)

    @property
    def clip(self) -> tuple[int, ...] | None:
        """Sides (T, H, W) of the clips behind the number; None for one of images. Other frames or
        pixels make another number, which stands in a column and in a chart of its own."""
        return self.size if self.size is not None and len(self.size) == 3 else None

    @property
    def number(self) -> float | None:
        """The value, infinite and undefined ones too; None if nothing was measured."""
        return float(self.not_finite) if self.not_finite else self.value

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest of the values at several seeds; None without them."""
        found = [value for value in self.each if value is not None]
        return (min(found), max(found)) if found and len(found) == len(self.each) else None

    @property
    def below_floor(self) -> bool:
        """True for a distance smaller than that of as many other real images."""
        floor = self.floor
        if floor is None or self.value is None:
            return False
        return floor.count == self.count and self.value < floor.value

    @property
    def plain(self) -> bool:
        """True for a number that stands for itself: no cell of a grid, no point of a curve."""
        return not self.point

    @property
    def guidance(self) -> Scale | None:
        """Guidance scale of the generator; None where nothing was generated."""
        found = self.sampling.get("generator", {}).get("guidance")
        return tuple(found) if isinstance(found, list) else found


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

    def json_text(self) -> str:
        """The text of results.json; ValueError for numbers that are not finite."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the JSON (renamed into place); numbers that are not finite are refused."""
        write_text(path, self.json_text())

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a results.json; InputError, one line that names the field, for anything else."""
        path = Path(path)
        try:
            data = read_json(path, LARGEST, **_NUMBERS)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).removeprefix(f"{path}: ").split())
            raise InputError(f"{path}: cannot be read as JSON ({reason})") from None
        version = data.get("schema") if isinstance(data, dict) else None
        if version != SCHEMA:
            raise InputError(f"{path}: schema {version!r}; expected {SCHEMA}: evaluate again")
        rows = data.get("rows")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict):
                row.pop("display", None)  # follows from the rest
        try:
            Described.model_validate({k: v for k, v in data.items() if k in ("runs", "facts")})
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            why = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{path}: {where}: {why}; evaluate again") from None


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _whole(text: str) -> int:
    if len(text) > 300:
        raise ValueError(f"{text[:20]}... is too large")
    return int(text)


# JSON has no NaN and no infinity, but Python's reader takes them.
_NUMBERS: dict[str, Any] = {
    "parse_constant": _number,
    "parse_float": _number,
    "parse_int": _whole,
}

# Key of a point -> its texts, its numbers, and the names below `measured` that go with it.
_POINTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "alpha": ((), ("alpha", "delta"), ("delta",)),
    "damage": (("damage",), ("share",), ()),
    "codec": (("codec",), (), ("bytes",)),
    "tap": (("tap",), (), ()),
    "frame": ((), ("frame",), ()),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def json_schema() -> dict[str, Any]:
    """JSON schema of results.json; committed as results.schema.json, which a test keeps true."""
    return Results.model_json_schema(by_alias=True, mode="serialization")


def display(metric: str, features: Network | None, reference: Reference, preset: str = "") -> str:
    """`rFID[vistok-cnn, photos]`: a metric with its network, its preset and its data."""
    inside = [] if features is None else [features.name]
    inside += [preset] if preset else []
    return f"{metric}[{', '.join([*inside, reference.name])}]"
