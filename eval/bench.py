"""What a protocol works with: one tokenizer run, its pictures, the networks that look."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from eval.images import Views, network_of
from eval.real import RealStats
from eval.rows import Row, finite
from eval.runs import Run
from vistok.frozen import FeatureNetwork, PerceptualNetwork
from vistok.metrics import FeatureStats, frechet_distance
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec


@dataclass
class Bench:
    """A tokenizer on the table. Protocols return rows and put what is no number into `facts`."""

    run: Run
    views: Views
    features: FeatureNetwork
    perceptual: PerceptualNetwork | None = None  # the first of them
    seed: int = 0
    stamp: dict[str, Any] = field(default_factory=dict)  # versions, commit, date
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)  # grids for the report
    protocol: str = ""  # the name that its rows carry
    more_perceptual: tuple[PerceptualNetwork, ...] = ()

    @property
    def perceptuals(self) -> tuple[PerceptualNetwork, ...]:
        """All perceptual networks that were asked for."""
        return () if self.perceptual is None else (self.perceptual, *self.more_perceptual)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.run.tokenizer

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec()

    @property
    def device(self) -> torch.device:
        return self.views.device

    @property
    def batch(self) -> int:
        return self.views.batch

    def row(self, metric: str, value: float, **rest: Any) -> Row:
        """A row of this bench; `value` may be infinite, which becomes null and a note."""
        note = rest.pop("note", "")
        if finite(value) is None:
            note = f"{note + '; ' if note else ''}the value is {float(value)}"
        common = {
            "protocol": self.protocol,
            "run": self.run.name,
            "weights": self.run.sha256,
            "samples": len(self.views),
            "length": self.spec.steps,
            **self.views.protocol,
            **self.stamp,
        }
        return Row(metric=metric, value=finite(value), note=note, **{**common, **rest})

    def frechet_row(
        self,
        metric: str,
        stats: FeatureStats,
        real: RealStats | None = None,
        against: FeatureStats | None = None,
        **rest: Any,
    ) -> Row:
        """Fréchet distance of painted pictures (already summed over ranks) to real ones: the
        pictures of this bench, or `real`. `against`: other features of this bench's pictures."""
        if against is None:
            against = self.views.stats(self.features) if real is None else real.stats
        with warnings.catch_warnings():  # its warning becomes the row's note
            warnings.simplefilter("ignore")
            value = frechet_distance(stats, against)
        fewest = min(stats.count, against.count)
        if fewest < stats.dim:
            few = f"biased upwards: {fewest} pictures for {stats.dim} features"
            rest["note"] = f"{rest['note']}; {few}" if rest.get("note") else few
        common = {"features": network_of(self.features), "samples": stats.count}
        if real is not None:
            common |= real.protocol
        return self.row(metric, value, **{**common, **rest})

    def new_stats(self) -> FeatureStats:
        return FeatureStats(self.features.dim, self.device)

    def skip(self, protocol: str, reason: str, run: str | None = None) -> None:
        """Nothing is left out silently: the report lists what was not measured, and why."""
        self.skipped.append({"protocol": protocol, "run": run or self.run.name, "reason": reason})
