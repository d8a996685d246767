"""The record of one metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Record of one metric: its name, how it is printed, and where it is shown."""

    name: str
    help: str = ""  # one sentence for the report
    title: str = ""  # heading; "" = the name
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    digits: int = 4
    scale: float = 1.0  # tables print value / scale
    table: Literal["length", "whole"] = "length"  # a value for each kept length, or one
    tile: int = 0  # place among the headline numbers of a run; 0 = not there
    curve: int = 0  # place among the curves over the kept length; 0 = not there
    predicts: Literal["x", "y", ""] = ""  # side in the correlation of tokenizers with generators
    floor: bool = False  # a property of the images: stands beside runs, never as one of them
    baseline: bool = False  # measured at one guidance only: its name need not give it
    generated: bool = False  # of generated images by its very name
    exact: bool = False  # the same for any number of images: never marked for few of them
    cells: bool = False  # a mean over a grid whose cells (NAME-cell) are drawn as a map
    framewise: bool = False  # of clips every frame counts as an image

    @property
    def heading(self) -> str:
        """Title with its unit: "PSNR (dB)"."""
        title = self.title or self.name
        return f"{title} ({self.unit})" if self.unit and "(" not in title else title
