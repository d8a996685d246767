"""Cards of a study's claims: the sentence that is tested, its verdict, numbers and charts.

Everything lies in `facts.study.claims`, which eval/study/claims made; here it is only shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.eval.report.claim_charts import draw, standalone
from vistok.eval.report.tables import markdown
from vistok.eval.results.rows import Results

_MARK = {"holds here": "holds", "does not hold here": "fails", "not decided": "open"}
_ANSWER = {"yes": "✓", "no": "✗", "open": "?"}


def claims_of(results: Results) -> list[dict[str, Any]]:
    """The claims among the facts; [] for an evaluation that is no study, or has none."""
    return (results.facts.get("study") or {}).get("claims") or []


def cards(results: Results) -> list[dict[str, Any]]:
    """What the page shows of each claim, charts drawn."""
    return [
        {
            **{key: one[key] for key in ("id", "says", "paper", "verdict", "sentence", "needed")},
            "doubts": one["doubts"],
            "mark": _MARK[one["verdict"]],
            "readings": [_reading(reading) for reading in one["readings"]],
        }
        for one in claims_of(results)
    ]


def _reading(one: Mapping[str, Any]) -> dict[str, Any]:
    tests = [
        {"mark": _ANSWER[test["answer"]], "text": test["text"], "asked": test["asked"]}
        for test in one["tests"]
    ]
    figures = [{"chart": draw(chart), "text": chart.get("text", "")} for chart in one["charts"]]
    keys = ("network", "decides", "header", "lines", "missing", "notes")
    return {**{key: one[key] for key in keys}, "tests": tests, "figures": figures}


def blocks(results: Results) -> list[str]:
    """The claims as Markdown: a table of verdicts, then each one's tests."""
    found = claims_of(results)
    if not found:
        return []
    body = [[one["says"], one["paper"], one["verdict"]] for one in found]
    made = ["## Claims", markdown(["claim", "paper", "verdict"], body)]
    for one in found:
        tests = [
            [reading["network"], "" if reading["decides"] else "shown only", test["text"]]
            for reading in one["readings"]
            for test in reading["tests"]
            if test["asked"]
        ]
        said = [["conclusion", one["sentence"]], ["needed", one["needed"]]]
        said += [["doubt", doubt] for doubt in one["doubts"]]
        made.append(markdown([one["id"], one["verdict"]], [line for line in said if line[1]]))
        if tests:
            made.append(markdown(["network", "", "test"], tests))
    return [*made, "## Numbers"]


def figures(results: Results) -> dict[str, str]:
    """{id of a claim: its charts as one SVG file}: those of the networks that decide, or of all."""
    found = {}
    for one in claims_of(results):
        deciding = [r for r in one["readings"] if r["decides"]] or one["readings"]
        several = len(deciding) > 1
        charts = [
            {**chart, "title": f"{chart['title']}, {reading['network']}"} if several else chart
            for reading in deciding
            for chart in reading["charts"]
        ]
        title = f"{one['says']} ({one['verdict']})"
        if svg := standalone(charts, title):
            found[one["id"]] = svg
    return found


def text(results: Results) -> str:
    """The claims for a terminal."""
    lines = []
    for one in claims_of(results):
        lines.append(f"{one['verdict'].upper()}: {one['says']}")
        lines.append(f"  {one['sentence']}")
        lines += [f"  Needed: {one['needed']}"] if one["needed"] else []
        lines += [f"  Doubt: {doubt}" for doubt in one["doubts"]]
    return "\n".join(lines)
