"""One verdict on a claim, by explicit rules, and a sentence that claims no more than it bears.

1. A claim is read through each feature network by itself. Networks through which a training loss of
   a compared run looks are shown, and decide nothing.
2. A reading says yes if all its tests do and nothing is missing, no if one of them does.
3. Runs whose generator does not beat its untrained twin are left out on trial: a reading that
   answers otherwise without them is open.
4. The claim holds here if every deciding network says yes, does not hold here if every one says no;
   anything else is not decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vistok.eval.results.rows import Results
from vistok.eval.study.claims.base import FAILS, FEWEST, HOLDS, OPEN, ClaimBase, Reading, Test
from vistok.eval.study.claims.doubts import (
    below_floor,
    few_images,
    not_above,
    not_learned,
    shared_with_training,
)
from vistok.eval.study.claims.numbers import Made, Numbers, networks_of

_VERDICT = {"yes": HOLDS, "no": FAILS, "open": OPEN}


def judge(claim: ClaimBase, results: Results, made: Made) -> dict[str, Any]:
    """The facts of a claim, as JSON: verdict, sentence, what would be needed, doubts, and the
    reading of each network with its tests, numbers and charts."""
    names = networks_of(results, claim.decisive) or [None]
    readings, doubts = [], []
    for name in names:
        one = Numbers(results, made, name, claim.guidance, claim.generator)
        shared = shared_with_training(one, claim.compared, claim.decisive)
        wanted = not claim.networks or name in claim.networks
        reading, why = _read(claim, one)
        readings.append((name, wanted and not shared, reading))
        doubts += [
            f"The training of {_names(runs)} looked through {network}, which measures too: its "
            "numbers are shown and decide nothing."
            for network, runs in shared.items()
        ]
        where = f" ({name})" if len(names) > 1 else ""
        doubts += [f"{line}{where}" for line in why]
        more = not_above(one, claim.compared, claim.measured)
        doubts += [f"{line}{where}" for line in (*more, *below_floor(one, claim.measured))]
    whole = Numbers(results, made, guidance=claim.guidance, generator=claim.generator)
    doubts += few_images(whole, claim.measured)
    deciding = [(name, reading) for name, decides, reading in readings if decides]
    answers = {reading.answer for _, reading in deciding}
    verdict = _VERDICT[answers.pop()] if len(answers) == 1 else OPEN
    absent = [name for name in claim.networks if name not in names]
    if absent:
        verdict = OPEN
        doubts.append(f"Not measured through {', '.join(absent)}, which should decide.")
    return {
        "id": claim.id,
        "kind": claim.kind,
        "paper": claim.paper,
        "says": claim.says,
        "verdict": verdict,
        "sentence": _sentence(claim, verdict, deciding, readings),
        "needed": " ".join(_needed(claim, verdict, deciding)),
        "doubts": list(dict.fromkeys(doubts)),
        "readings": [_facts(*one) for one in readings],
    }


def _read(claim: ClaimBase, numbers: Numbers) -> tuple[Reading, list[str]]:
    """The reading of all runs, open where it does not survive without the doubtful ones."""
    found = claim.read(numbers)
    doubtful = not_learned(numbers, claim.compared, claim.measured)
    if not doubtful:
        return found, []
    left = replace(numbers, left_out=frozenset(doubtful), notes={})
    without = claim.read(left)
    names = [
        run if seed is None else f"{run} (seed {seed})" for run, seed in sorted(doubtful, key=str)
    ]
    said = (
        f"The generator of {_names(names)} is not better than the same network with fresh weights: "
        "there its numbers tell how the decoder gives, not what was learned."
    )
    if without.answer == found.answer:
        same = "Without them the answer is the same." if found.answer != "open" else ""
        return found, [f"{said} {same}".strip()]
    if found.answer == "open":
        return found, [f"{said} Without them the answer would be {without.answer}."]
    tests = tuple(
        replace(test, answer="open", needed="Generators that learn more than their baselines.")
        if test.asked and test.answer == found.answer
        else test
        for test in found.tests
    )
    return replace(found, tests=tests), [f"{said} Without them the answer changes: not decided."]


def _sentence(
    claim: ClaimBase,
    verdict: str,
    deciding: list[tuple[str | None, Reading]],
    readings: list[tuple[str | None, bool, Reading]],
) -> str:
    """The numbers of the deciding readings, the verdict's reason, and of what it says nothing."""
    shown = deciding or [(name, reading) for name, _, reading in readings]
    said = []
    for name, reading in shown:
        through = f"Through {name}: " if name is not None and len(shown) > 1 else ""
        texts = [test.text for test in reading.tests if test.asked]
        lost = [f"missing: {', '.join(reading.missing)}"] if reading.missing else []
        said.append(through + ("; ".join((*texts, *lost)) or "nothing was measured") + ".")
    if not deciding:
        why = (
            f"those that should ({', '.join(claim.networks)}) were not measured, or the training "
            "looked through them"
            if claim.networks
            else "the training looked through every one"
        )
        said.append(f"No network decides: {why}.")
    elif len({reading.answer for _, reading in deciding}) > 1:
        said.append("The networks do not agree, so nothing is decided.")
    fewest = min((t.n for _, r in shown for t in r.tests if t.asked), default=0)
    scope = next((reading.scope for _, reading in shown if reading.scope), "")
    if verdict != OPEN:
        few = (
            f" Fewer than {FEWEST} bear little: nothing general may be claimed."
            if fewest < FEWEST
            else ""
        )
        through = " and ".join(name for name, _ in deciding if name is not None)
        here = f"{scope}, this data set" + (f" and numbers through {through}" if through else "")
        said.append(
            f"That it {verdict.replace(' here', '')} is said of {here}; it says nothing of other "
            f"{claim.general}.{few}"
        )
    return " ".join(said)


def _needed(
    claim: ClaimBase, verdict: str, deciding: list[tuple[str | None, Reading]]
) -> list[str]:
    """What an undecided claim would need."""
    if verdict != OPEN:
        return []
    if not deciding:
        through = " and ".join(claim.networks) or "a network"
        return [f"Numbers through {through}, where no training loss looks through it."]
    open_ = [test for _, reading in deciding for test in reading.tests if _wanting(test)]
    found = [f"{test.name}: {_lower(test.needed)}" for test in open_]
    missing = [one for _, reading in deciding for one in reading.missing]
    missing = list(dict.fromkeys(missing))
    found += [f"What is missing: {'; '.join(missing)}."] if missing else []
    return list(dict.fromkeys(found))


def _wanting(test: Test) -> bool:
    return test.asked and test.answer == "open" and bool(test.needed)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _names(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) < 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
    )


def _facts(network: str | None, decides: bool, reading: Reading) -> dict[str, Any]:
    return {
        "network": network or "",
        "decides": decides,
        "answer": reading.answer,
        "scope": reading.scope,
        "tests": [_test(test) for test in reading.tests],
        "header": list(reading.header),
        "lines": [list(line) for line in reading.lines],
        "charts": list(reading.charts),
        "missing": list(reading.missing),
        "notes": list(reading.notes),
    }


def _test(test: Test) -> Mapping[str, Any]:
    number = lambda value: None if value is None or value != value else float(value)
    interval = None if test.interval is None else [number(side) for side in test.interval]
    return {**vars(test), "value": number(test.value), "interval": interval}
