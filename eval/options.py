"""What the command line asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from vistok.eval.resumable import EVERY

PFIDMode = Literal["full", "quick", "both", "none"]
DEFAULT = ("rfid", "pfid", "gfid", "pictures")


@dataclass(frozen=True)
class Options:
    """Everything that a protocol may be told; what changes its numbers is in its jobs' settings."""

    protocols: tuple[str, ...] = DEFAULT
    features: str = "vistok-cnn"
    weights: str | None = None
    metrics: tuple[str, ...] = ("fid",)  # of eval.sets.METRICS
    stored: int = 50_000  # feature vectors kept for KID, precision and recall
    perceptual: tuple[str, ...] = ("vistok-cnn",)  # ("none",): none
    data: tuple[str, ...] = ()
    limit: int | None = None
    batch: int | None = None  # None: 256 on a GPU, 32 on a CPU, whose caches hold no more
    samples: int | None = None  # None: as many as there are images
    pfid: PFIDMode = "both"
    guidance: tuple[float, ...] = (1.0, 1.5)  # gFID is always measured at 1.0 too
    probe: str | None = None  # AR probe for gFID: tiny, s, b, or a YAML file
    train_limit: int | None = None  # training images behind gFID; None: `limit`, else 50,000
    seed: int = 0
    workers: int = 0
    reference: str | None = None  # a file of statistics that gFID is measured against
    reference_rfid: bool = False  # rFID too
    allow_mismatch: tuple[str, ...] = ()  # fields in which that file and the images may differ
    cache: str | None = None  # folder of outcomes; None keeps nothing
    save_every: float = EVERY  # seconds between two saves of a long pass
    fresh: bool = False  # what lies there is evaluated again
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
