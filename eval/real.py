"""The real side of a Fréchet distance: statistics of real pictures and how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.rows import Network, Reference
from vistok.metrics import FeatureStats


@dataclass(frozen=True)
class RealStats:
    """Statistics and all that must agree with the pictures they are compared to."""

    stats: FeatureStats
    network: Network
    reference: Reference
    crop: str
    filter: str
    size: tuple[int, int] | None

    @property
    def protocol(self) -> dict[str, Any]:
        """Row fields that follow from the reference."""
        return {
            "features": self.network,
            "reference": self.reference,
            "crop": self.crop,
            "filter": self.filter,
            "size": self.size,
        }
