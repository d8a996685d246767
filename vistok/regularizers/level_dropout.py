"""Level dropout: train sums of some levels alone (ImageFolder's, arXiv 2410.01756).

A share of the images keeps only the first k scales of a multi-scale or residual quantizer, k
uniform from `start` to all; or loses `count` scales anywhere behind the first `start` (TokenFlow,
arXiv 2412.03069). One draw per image is shared by all branches. The quantizer obeys: its values
leave the dropped levels out; whether later levels code what they miss, its `dropped` says.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.base import Regularizer
from vistok.regularizers.choice import Choose, chosen_images
from vistok.tokens import TokenSpec


class LevelDropoutConfig(Config):
    kind: Literal["level_dropout"] = "level_dropout"
    proportion: float = Field(default=0.1, ge=0, le=1)
    """Share of the images of the global batch that lose levels (paper: codebook_drop)."""
    start: int = Field(default=3, ge=1, le=256)
    """The smallest number of levels that are kept (paper: start_drop); the first so many are never
    dropped."""
    which: Literal["last", "any"] = "last"
    """Levels that an image loses: the last ones, as many as are drawn; or `count` of those behind
    the first `start`, the last one included (TokenFlow)."""
    count: int = Field(default=1, ge=1, le=256)
    """Levels that are lost with which=any."""
    choose: Choose | Literal["batch"] = "global"
    """Images that lose levels: global, a keyed pick of exactly floor(proportion * B) of the global
    batch; first_local, the first floor(proportion * B) of each process (ImageFolder); batch, all of
    the batch, and the same levels, in that share of the steps (TokenFlow)."""

    @classmethod
    def tiny(cls) -> LevelDropoutConfig:
        return cls(proportion=0.5, start=1)


@register("regularizer", LevelDropoutConfig)
class LevelDropout(Regularizer):
    fills = ("levels",)

    def __init__(self, config: LevelDropoutConfig) -> None:
        self.config = config

    def check(self, spec: TokenSpec) -> None:
        levels = len(spec.blocks)
        if spec.prefix != "block":
            raise InputError(
                "it drops levels, and the tokens of this quantizer have none; expected a "
                "multi_scale or residual quantizer, also inside a product"
            )
        if self.config.start > levels:
            raise InputError(
                f"start={self.config.start}: this quantizer has {levels} levels; expected 1.."
                f"{levels}"
            )
        if self.config.which == "any" and self.config.count > levels - self.config.start:
            raise InputError(
                f"count={self.config.count}: behind the first {self.config.start} of {levels} "
                f"levels there are {levels - self.config.start} to lose; expected as many or fewer"
            )

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        start, levels = self.config.start, len(spec.blocks)
        per = "batch" if self.config.choose == "batch" else "sample"
        if per == "batch":
            images = rng.child("images").uniform(index, per=per) < self.config.proportion
        else:
            images = chosen_images(index, self.config.proportion, self.config.choose, rng)
        if self.config.which == "any":
            order = rng.uniform(index, (levels - start,), per).argsort(1)
            lost = torch.zeros(len(index), levels, dtype=torch.bool)
            lost.scatter_(1, start + order[:, : self.config.count], True)
            return Draws(levels=~(lost & images[:, None]))
        keep = start + rng.integers(index, levels - start + 1, per=per)
        keep = torch.where(images, keep, levels)
        return Draws(levels=torch.arange(levels) < keep[:, None])
