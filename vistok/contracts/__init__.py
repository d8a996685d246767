"""The contract of parts as checks that anybody can run: `vistok test-part my.module`.

One file per family. A check is a function of a `Case` (a part in the smallest tokenizer that holds
it); it returns if the part keeps the promise, and raises `Broken` or `Left` otherwise. The tests of
vistok's own parts run the same checks.
"""

from vistok.contracts import data, decoders, encoders, every, generators, losses, quantizers
from vistok.contracts.case import Case
from vistok.contracts.check import CHECKS, Broken, Check, Left, Outcome, checks_of, run_check

__all__ = [
    "CHECKS",
    "Broken",
    "Case",
    "Check",
    "Left",
    "Outcome",
    "checks_of",
    "data",
    "decoders",
    "encoders",
    "every",
    "generators",
    "losses",
    "quantizers",
    "run_check",
]
