"""Claims of papers, put to the test on a study's numbers: kinds, intervals and verdicts."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from vistok.config import PartOf

for _name in ("correlation", "paired", "curve", "flat", "matched"):
    importlib.import_module(f"vistok.eval.study.claims.{_name}")

ClaimConfig = Annotated[Any, PartOf("claim")]
"""A claim, chosen by its `kind`."""
