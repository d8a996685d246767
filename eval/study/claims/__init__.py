"""Claims of papers, put to the test on a study's numbers: kinds, intervals and verdicts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vistok.eval.study.claims.correlation import CorrelationClaim
from vistok.eval.study.claims.curve import CurveClaim
from vistok.eval.study.claims.flat import FlatClaim
from vistok.eval.study.claims.matched import MatchedClaim
from vistok.eval.study.claims.paired import PairedClaim

ClaimConfig = Annotated[
    CorrelationClaim | PairedClaim | CurveClaim | FlatClaim | MatchedClaim,
    Field(discriminator="kind"),
]
"""A claim, chosen by its `kind`."""
