"""The parts of a module, their cases, and the report of their checks."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence

from vistok.config import ConfigError
from vistok.config.names import nearest
from vistok.config.overrides import text_of
from vistok.config.plugins import load_plugins, owner_of
from vistok.config.registry import Entry, entries, families
from vistok.contracts.case import Case
from vistok.contracts.check import Check, Outcome, checks_of, run_check
from vistok.contracts.every import module_of

# Checks of what the library itself does not know, imported where such a part is there.
_ELSEWHERE = {"task": "vistok.train.contracts", "protocol": "vistok.eval.contracts"}
_BUILT = "a tokenizer is built with it, on the meta device too"


def parts_of(module: str, name: str | None = None) -> list[Entry]:
    """The parts that a module registers, or the one of a kind; loads the module.

    Raises ConfigError if it cannot be imported, registers none, or has no part of that kind.
    """
    load_plugins(module)
    own = [one for one in _all() if _is_of(one, module)]
    if not own:
        raise ConfigError(
            f"{module}: it registers no part; expected a class behind "
            '@register("quantizer", ItsConfig) of vistok.config.registry'
        )
    if name is None:
        return own
    chosen = [one for one in own if name in (one.kind, f"{one.family}.{one.kind}")]
    if not chosen:
        raise ConfigError(f"{module}: no part '{name}'; {nearest(name, [e.kind for e in own])}")
    return chosen


def _all() -> Iterator[Entry]:
    for family in families():
        yield from entries(family).values()
    if "vistok.eval.protocols.base" in sys.modules:  # protocols have a registry of their own
        yield from importlib.import_module(_ELSEWHERE["protocol"]).protocol_entries()


def _is_of(entry: Entry, module: str) -> bool:
    if owner_of(entry.part) == module:
        return True
    return f"{entry.part.__module__}.".startswith(f"{module}.")


def checks_for(family: str) -> list[Check]:
    """The checks of a family, those of tasks and protocols included; [] for other families."""
    if family in _ELSEWHERE:
        importlib.import_module(_ELSEWHERE[family])
    return checks_of(family)


def cases(parts: Sequence[Entry], words: Sequence[str] = ()) -> list[Case]:
    """The parts with their tiny configs and KEY=VALUE changes.

    ConfigError for changes where several parts could be meant, and for parts of families without
    checks: nothing would be tested.
    """
    if not any(checks_for(part.family) for part in parts):
        named = ", ".join(f"{part.family} {part.kind}" for part in parts)
        tested = ", ".join(family for family in sorted(families()) if checks_for(family))
        raise ConfigError(f"{named}: no checks of this family; expected a part of: {tested}")
    if words and len(parts) > 1:
        kinds = ", ".join(part.kind for part in parts)
        raise ConfigError(f"{words[0]}: of which part? name one of {kinds} before it")
    return [Case.of(part, words) for part in parts]


def heading(case: Case) -> str:
    """One line that says what is tested, and with which config."""
    tree = {key: value for key, value in case.tree().items() if key != "kind"}
    said = " ".join(f"{key}={text_of(value)}" for key, value in tree.items())
    said = said if len(said) <= 100 else f"{said[:97]}..."
    name = f"{case.family} {case.entry.kind}"
    return f"{name}: {case.entry.part.__name__} in {module_of(case)}; {said or 'no settings'}"


def report(case: Case) -> Iterator[Outcome | str]:
    """Outcomes of a part's checks as they are made; a line of text where the rest is left out."""
    checks = checks_for(case.family)
    if not checks:
        yield f"not tested: there are no checks of a {case.family}"
    for number, one in enumerate(checks, 1):
        outcome = run_check(one, case)
        yield outcome
        if outcome.state == "failed" and one.name == _BUILT and number < len(checks):
            yield f"the other {len(checks) - number} checks need it to be built"
            return


class Tally:
    """Counts of outcomes, and the seconds they took."""

    def __init__(self) -> None:
        self.counts = {"ok": 0, "failed": 0, "missing": 0}
        self.start = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.state] += 1

    def __str__(self) -> str:
        shown = {state: count for state, count in self.counts.items() if count or state == "ok"}
        told = [f"{count} {state}" for state, count in shown.items()]
        return f"{', '.join(told)} ({time.monotonic() - self.start:.1f} s)"
