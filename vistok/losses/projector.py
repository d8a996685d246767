"""Trained projectors between the features of a tokenizer and those of a frozen network."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field
from torch import nn

from vistok.config import Config


class ProjectorConfig(Config):
    kind: Literal["none", "linear", "mlp", "normed"] = "mlp"
    """none compares features as they are; both must have one width. normed: Linear, LayerNorm,
    ReLU, Linear, of the input's width inside (Instella-T2I)."""
    side: Literal["student", "teacher"] = "student"
    """student: the tokenizer's features are projected to the width of the frozen network's (REPA);
    teacher: the other way round."""
    layers: int = Field(default=3, ge=2, le=16)
    """Linear layers of an mlp, with SiLU between them."""
    hidden: int | None = Field(default=2048, ge=1, le=2**14)
    """Width between them (REPA: 2048); null = four times that of the input (ReTok)."""


def projector(config: ProjectorConfig, inside: int, outside: int) -> nn.Module | None:
    """[..., inside] -> [..., outside]; None for kind=none."""
    if config.kind == "none":
        return None
    if config.kind == "linear":
        return nn.Linear(inside, outside)
    if config.kind == "normed":
        norm = nn.LayerNorm(inside, eps=1e-5)
        return nn.Sequential(nn.Linear(inside, inside), norm, nn.ReLU(), nn.Linear(inside, outside))
    hidden = 4 * inside if config.hidden is None else config.hidden
    widths = [inside, *[hidden] * (config.layers - 1), outside]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
