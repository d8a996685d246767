"""The parts of results.json that are no rows, as reports read them: runs, and facts by name.

They are plain data in `Results`; a file is checked against these classes when it is read, so that
a damaged or edited one is one line that names the field. Keys that are not listed may be there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vistok.core.errors import InputError

Scale = float | tuple[float, ...]
"""Guidance scale of a generator: of all factors of a token, or of each."""

Length = Annotated[str, StringConstraints(pattern=r"^\d{1,18}$")]


class Fact(BaseModel):
    """Base class: further keys are left alone, types are never converted."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Spec(Fact):
    """Tokens of a run's model."""

    blocks: list[list[int]] = []
    vocab: list[int | str] = []


class Step(Fact):
    """A line of a run's metrics.jsonl."""

    step: float = 0.0
    split: str = ""


class RunFacts(Fact):
    """Record of a run, of a tokenizer or a generator."""

    name: str
    kind: str
    sha256: str
    folder: str = ""
    license: str | None = None
    """Of the weights; None: not stated."""
    parameters: float | None = None
    spec: Spec | None = None
    lengths: dict[Length, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    config: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    history: list[Step] | None = None
    """Lines of metrics.jsonl, thinned to about 200 of each split."""


class Skipped(Fact):
    """A number that was not measured, and why."""

    protocol: str
    run: str
    reason: str


class Strip(Fact):
    label: str
    uri: str
    tokens: int | None = None
    bits: int | None = None


class ImageGrid(Fact):
    """Strips of small images of one run."""

    kind: str
    run: str
    size: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]
    columns: list[str]
    rows: list[Strip]
    cells: int | None = Field(default=None, ge=1)
    frames: int | None = Field(default=None, ge=1)
    """Frames of strips that play; None: still images."""
    fps: float | None = Field(default=None, gt=0)
    guidance: Scale | None = None
    note: str = ""
    split: Literal["val", "train"] = "val"
    """Split of the images of reconstructions."""


class CodebookFacts(Fact):
    """How often the codes of a tokenizer occur: [rank, count] of some, most frequent first."""

    codes: int = Field(ge=1)
    used: int = Field(ge=0)
    tokens: int | None = Field(default=None, ge=0)
    sorted_counts: list[Annotated[list[int], Field(min_length=2, max_length=2)]]
    position_entropy: list[float] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> CodebookFacts:
        """The numbers of one histogram bound each other; edited ones seldom do."""
        ranks = [rank for rank, _ in self.sorted_counts]
        counts = [count for _, count in self.sorted_counts]
        if self.used > self.codes:
            raise InputError(f"used={self.used} of codes={self.codes}; expected no more than all")
        if ranks != sorted(set(ranks)) or (ranks and not 0 <= ranks[0] <= ranks[-1] < self.codes):
            raise InputError(f"sorted_counts: expected rising ranks in 0..{self.codes - 1}")
        if counts != sorted(counts, reverse=True) or (counts and counts[-1] < 0):
            raise InputError("sorted_counts: expected falling counts of 0 or more")
        if any((count > 0) != (rank < self.used) for rank, count in self.sorted_counts):
            raise InputError(f"sorted_counts: expected {self.used} codes (used) that occur")
        if self.tokens is not None and sum(counts) > self.tokens * max(1, self.factors):
            raise InputError(f"sorted_counts: {sum(counts)} counts of tokens={self.tokens}")
        return self

    @property
    def factors(self) -> int:
        """Factors of a code that are counted apart; each token counts in every one."""
        usage = (self.model_extra or {}).get("factor_usage")
        return len(usage) if isinstance(usage, list) else 1


class OrderFacts(Fact):
    """Entropy of each position and change of the image with it."""

    entropy: list[float] | None = None
    change: list[float] | None = None


Numbers = list[float]


class DifferencesRow(Fact):
    """A pair of runs: a dot a seed, the mean and its interval."""

    name: str
    dots: Numbers
    mean: float | None = None
    interval: Annotated[Numbers, Field(min_length=2, max_length=2)] | None = None


class CurveFacts(Fact):
    """A curve of a run: [x, mean, low, high] and [x, value] of each seed."""

    name: str
    points: list[Annotated[list[float | None], Field(min_length=4, max_length=4)]]
    dots: list[Annotated[Numbers, Field(min_length=2, max_length=2)]] = []

    @model_validator(mode="after")
    def _there(self) -> CurveFacts:
        if any(None in point[:2] for point in self.points):
            raise InputError(
                "points: expected [x, mean, low, high], of which low and high may lack"
            )
        return self


class ChartFacts(Fact):
    """A chart of a claim, as plain data."""

    kind: Literal["differences", "curves", "scatter"]
    metric: str = ""
    title: str
    text: str = ""
    x_title: str = ""
    y_title: str = ""
    share: bool = False
    log_x: bool = False
    band: Annotated[Numbers, Field(min_length=2, max_length=2)] | None = None
    rows: list[DifferencesRow] = []
    series: list[CurveFacts] = []
    points: list[Annotated[list[str | float], Field(min_length=3, max_length=3)]] = []

    @model_validator(mode="after")
    def _named(self) -> ChartFacts:
        if any([isinstance(one, str) for one in point] != [True, False, False]
               for point in self.points):  # fmt: skip
            raise InputError("points: expected [name, x, y]")
        return self


class TestFacts(Fact):
    """One comparison of a claim."""

    name: str
    answer: Literal["yes", "no", "open"]
    text: str
    asked: bool = True


class ReadingFacts(Fact):
    """A claim through one feature network."""

    network: str
    decides: bool
    tests: list[TestFacts]
    header: list[str]
    lines: list[list[str]]
    charts: list[ChartFacts]
    missing: list[str]
    notes: list[str]


class ClaimFacts(Fact):
    """A sentence of a paper and the verdict on it."""

    id: str
    kind: str
    paper: str
    says: str
    verdict: Literal["holds here", "does not hold here", "not decided"]
    sentence: str
    needed: str
    doubts: list[str]
    readings: list[ReadingFacts]


class StudyFacts(Fact):
    sentences: list[str] = []
    claims: list[ClaimFacts] = []


class Config(Fact):
    """Config of the evaluation."""

    protocols: list[str] = []


class NetworkFacts(Fact):
    name: str
    sha256: str


class Written(Fact):
    """Record of a report's files: its page, and the sha256 of each other file."""

    page: str
    files: dict[str, str]


class Facts(Fact):
    """All facts that a report reads."""

    commands: list[str] = []
    command: str | None = None
    pairs: dict[str, list[str]] | None = None
    features: NetworkFacts | None = None
    world_size: int = 1
    device: str = ""
    config: Config | None = None
    skipped: list[Skipped] = []
    image_grids: list[ImageGrid] = []
    codebook: dict[str, CodebookFacts] = {}
    order: dict[str, OrderFacts] = {}
    study: StudyFacts | None = None
    versions: dict[str, str] = {}
    commit: str | None = None
    date: str = ""
    report: Written | None = None
    matrix_product_flops: dict[str, float] = {}


class Described(Fact):
    """The parts of results.json that are checked here."""

    runs: list[RunFacts] = []
    facts: Facts = Facts()
